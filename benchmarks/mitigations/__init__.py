"""What each mitigation does to tasks on which plain AdamW spikes."""
