"""Alerts of a training that is watched: who judges it, and the sinks that pass an alert on."""
