"""Several drivers on one study: they change it one at a time, and tell each other that they live."""
