"""What another beta2 would show along the trajectory of the real run: its second moments, and bounds on its S."""
