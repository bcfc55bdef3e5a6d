"""Labeled training runs over many workload families: what prediction rules are to be tuned on and judged by.

The committed traces were taken while glances had 0.35 of the measuring budget; the code gives them 0.06, so that a
corpus generated anew has fewer readings of the oscillation.
"""
