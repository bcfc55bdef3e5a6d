"""Labeled training runs over many workload families: what prediction rules are to be tuned on and judged by."""
