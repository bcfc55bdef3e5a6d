"""A closer look where training stands out: the step's batch beside others, S out of turn, the logits."""
