"""Alerts and signals as Prometheus metrics, served by ``prometheus_client`` (extra ``monitor``)."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from stabletune.records import Alert, Measurement

LEVELS = ("calm", "approaching", "unstable", "spiked")
SIGNALS = ("sharpness_ratio", "v_hat_staleness", "v_hat_decay", "update_rms", "gradient_norm")


class PrometheusSink:
    """Serves ``stabletune_loss``, ``_step``, ``_level`` (0 calm to 3 spiked), a gauge for each signal, and counters.

    ``stabletune_alerts_total{level}`` counts alerts; examples/monitoring has a Grafana panel and alert rules.

    Args:
        port: to serve on; 0 takes a free one, which ``port`` then is.
        address: to bind to.
        labels: put on every metric, such as ``{"run": "pretrain-3"}``.

    Raises:
        OSError: the port is in use.
        ValueError: a label is named ``level``.
    """

    def __init__(self, port: int, *, address: str = "127.0.0.1", labels: dict[str, str] | None = None) -> None:
        if "level" in (labels or {}):
            raise ValueError("labels: must not have level, which names an alert's, but it does. Give it another name.")
        registry, self._labels = CollectorRegistry(), labels or {}
        names = tuple(self._labels)

        def gauge(name: str, text: str) -> Any:
            return Gauge(f"stabletune_{name}", text, names, registry=registry)

        self._step, self._loss = gauge("step", "Steps so far."), gauge("loss", "Loss of the newest step.")
        self._level = gauge("level", "0 calm, 1 approaching, 2 unstable, 3 spiked.")
        self._signals = {name: gauge(name, f"Newest reading of {name}.") for name in SIGNALS}
        self._alerts = Counter("stabletune_alerts", "Alerts so far.", (*names, "level"), registry=registry)
        for level in LEVELS:
            self._alerts.labels(**self._labels, level=level)
        self._set(self._level, 0)
        self._address, self._registry = address, registry
        self.port = port
        self._serving: tuple[Any, Any] | None = None
        self._serve()

    def __call__(self, alert: Alert) -> None:
        """Count it."""
        self._serve()
        self._set(self._level, LEVELS.index(alert.level))
        self._alerts.labels(**self._labels, level=alert.level).inc()

    def observe(self, step: int, loss: float, reading: Measurement | None) -> None:
        """Take a step."""
        self._serve()
        self._set(self._step, step)
        self._set(self._loss, loss)
        for name, gauge in self._signals.items():
            value = None if reading is None else getattr(reading, name)
            if value is not None:
                self._set(gauge, value)

    def close(self) -> None:
        """Stop serving; the next step or alert serves again, on the same port."""
        if self._serving is not None:
            server, thread = self._serving
            self._serving = None
            server.shutdown()
            server.server_close()
            thread.join()

    def _serve(self) -> None:
        if self._serving is None:
            self._serving = start_http_server(self.port, addr=self._address, registry=self._registry)
            self.port = self._serving[0].server_port

    def _set(self, gauge: Any, value: float) -> None:
        (gauge.labels(**self._labels) if self._labels else gauge).set(value)
