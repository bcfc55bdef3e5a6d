"""What each optimizer's next step is made of, read from its own state: one file for each update rule."""
