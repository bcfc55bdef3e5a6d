"""Fixed bugs of the command line: what it prints and how it exits when things go wrong."""

import json
import math

import pytest
import typer
import yaml

from stabletune import cli
from stabletune.results.recommendation import Recommendation
from stabletune.study.proof.outcome import StudyResult
from tests.test_cli import CONFIG, invoke

SETTINGS = {"optimizer": "AdamW", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}


def config_of(tmp_path, source):
    (tmp_path / "mine.py").write_text(source)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("workload: quadratic", "workload: mine.py:build").replace("{jitter: 0.1}", "{}"))
    return path


def test_json_says_why_nothing_is_recommended(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("trials: 4", "trials: 4, wall_minutes: 1.0e-9"))
    done = invoke("search", path, "--output", tmp_path / "out", "--executor", "inline", "--json", "--quiet")
    assert done.exit_code == 3
    found = json.loads(done.stdout)
    assert (found["version"], found["recommendation"]) == (1, None)
    assert "wall_minutes" in found["reason"]


def test_json_knows_no_infinity_and_prints_null(capsys, tmp_path):
    evidence = {"objective": {"baseline": math.inf, "ratio": 0.0}}
    result = StudyResult("recommended", "", tmp_path, 1, Recommendation(SETTINGS, evidence))
    cli._print_result(result, as_json=True)
    assert json.loads(capsys.readouterr().out)["evidence"] == {"objective": {"baseline": None, "ratio": 0.0}}


def test_only_a_search_can_be_resumed(tmp_path, capsys):
    source = "def build(seed, device):\n    raise KeyboardInterrupt\n"
    path = config_of(tmp_path, source)
    searched = invoke("search", path, "--output", tmp_path / "out", "--executor", "inline", "--quiet")
    tried = invoke("trial", path)
    assert (searched.exit_code, tried.exit_code) == (130, 130)
    assert "--resume" in searched.stderr
    assert "interrupted" in tried.stderr and "--resume" not in tried.stderr


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("return 3", cli.MISTAKE, "must return a stabletune.Training"),
        ("return 1 / 0", cli.FAILED, "return 1 / 0"),
    ],
    ids=["the contract", "anything else"],
)
def test_a_trial_that_fails_tells_a_broken_contract_from_an_exception(tmp_path, body, code, words):
    done = invoke("trial", config_of(tmp_path, f"def build(seed, device):\n    {body}\n"))
    assert done.exit_code == code
    assert words in done.stderr


@pytest.mark.parametrize("param", ["lr=[1", "lr={a: b", "workload_args.jitter='"])
def test_a_parameter_that_is_no_yaml_is_a_mistake_with_a_remedy(tmp_path, param):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    done = invoke("trial", path, "--param", param)
    assert done.exit_code == 2
    assert "must be valid YAML" in done.stderr


def test_an_argument_that_the_workload_does_not_take_is_a_mistake(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    done = invoke("trial", path, "--param", "workload_args.jiter=0.2")
    assert done.exit_code == 2
    assert "must take workload_args.jiter" in done.stderr


def test_parameters_are_read_as_in_the_config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    out = tmp_path / "t"
    parameters = ("--param", "lr=1e-2", "--param", "workload_args.jitter=1e-1", "--param", "max_grad_norm=null")
    assert invoke("trial", path, *parameters, "--steps", "20", "--output", out).exit_code == 0
    measured = [yaml.safe_load(line) for line in (out / "measurements.jsonl").read_text().splitlines()]
    assert {row["lr"] for row in measured} <= {1e-2}


def test_a_failed_command_is_a_typer_exit():
    with pytest.raises(typer.Exit):
        cli._fail("message", cli.FAILED)
