"""The experiments that stabletune's signals rest on, run again: expected against measured, each with its figure."""
