"""The driver: asks the sampler, hands trials to an executor, tells results, proves candidates. Never imports torch."""
