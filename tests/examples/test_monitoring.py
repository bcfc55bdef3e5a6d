"""The example of a watched loop runs, and its Prometheus and Grafana files name metrics that there are."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from stabletune.monitor.alerts.prometheus_sink import PrometheusSink

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "monitoring"


@pytest.fixture(scope="module")
def metrics():
    sink = PrometheusSink(0, labels={"run": "x"})
    with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/metrics") as answer:
        text = answer.read().decode()
    sink.close()
    return set(re.findall(r"# TYPE (\w+)", text))


def test_the_loop_runs_and_writes_its_alerts(tmp_path):
    command = [sys.executable, str(FOLDER / "train.py"), "--steps", "1200", "--alerts", str(tmp_path / "alerts.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    alerts = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert "spiked" in {alert["level"] for alert in alerts}
    assert done.stdout.startswith("final loss ")
    assert all(alert["message"] in done.stderr for alert in alerts)


def test_alert_rules_name_metrics_that_there_are(metrics):
    rules = yaml.safe_load((FOLDER / "alert_rules.yaml").read_text())["groups"][0]["rules"]
    assert len(rules) == 3
    for rule in rules:
        assert set(re.findall(r"stabletune_\w+", rule["expr"])) <= metrics


def test_the_panel_names_metrics_that_there_are(metrics):
    panel = json.loads((FOLDER / "grafana_panel.json").read_text())
    named = {name for target in panel["targets"] for name in re.findall(r"stabletune_\w+", target["expr"])}
    assert len(named) == 3
    assert named <= metrics
