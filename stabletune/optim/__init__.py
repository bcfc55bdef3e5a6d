"""Optimizers that can damp a spike: torch's AdamW and the mitigations stabletune tunes."""

from stabletune.optim.instrumented_adamw import InstrumentedAdamW

__all__ = ["InstrumentedAdamW"]
