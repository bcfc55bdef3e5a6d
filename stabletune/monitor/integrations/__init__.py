"""Watching without a change to the loop: one module for each trainer, imported by the user who has that trainer."""
