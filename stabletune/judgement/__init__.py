"""What a history of losses and measurements means: pure numpy, so that a rule can be replayed on old runs."""
