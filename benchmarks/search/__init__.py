"""Training steps until a proven recommendation, for stabletune and for what a user could put together without it."""
