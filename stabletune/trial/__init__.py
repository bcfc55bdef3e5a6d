"""The worker: trains a workload with ``InstrumentedAdamW``, measures, judges, and knows neither optuna nor ray."""
