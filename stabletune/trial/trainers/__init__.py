"""Trainers that keep their own loop, searched without rewriting it: one module for each, imported by its user."""
