"""The stability monitor: decides when to measure, measures, and leaves no trace."""

from stabletune.monitor.stability_monitor import StabilityMonitor

__all__ = ["StabilityMonitor"]
