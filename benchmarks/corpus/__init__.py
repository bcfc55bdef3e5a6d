"""Labeled training runs over many workload families: what the prediction rules are tuned on and judged by."""
