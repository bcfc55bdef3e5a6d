import json
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from stabletune.cli import app

CONFIG = """
version: 1
name: quadratic
workload: quadratic
workload_args: {jitter: 0.1}
search_space: adam_lr_beta2
budget: {trials: 4, trial_steps: 40, full_steps: 80, confirm_seeds: 1}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "config.yaml").write_text(CONFIG)
    done = invoke("search", folder / "config.yaml", "--output", folder / "run", "--executor", "inline", "--quiet")
    assert done.exit_code == 0, done.stderr
    return folder / "run"


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_importing_the_command_line_loads_neither_torch_nor_ray_nor_optuna():
    code = "import sys, stabletune.cli; print([m for m in ('torch', 'ray', 'optuna', 'plotly') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("arguments", [["list"], ["export", "RUN", "--format", "json"], ["report", "RUN"]])
def test_what_only_reads_needs_no_torch(run_dir, arguments):
    words = [str(run_dir) if word == "RUN" else word for word in arguments]
    code = (
        "import sys; from stabletune.cli import app\n"
        f"try: app({words!r})\nexcept SystemExit as end: assert not end.code\n"
        "print('loaded:', [m for m in ('torch', 'ray', 'optuna') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip().endswith("loaded: []")


def test_the_package_runs_as_a_module_where_the_script_is_not_on_the_path():
    done = subprocess.run([sys.executable, "-m", "stabletune", "list", "formats"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, invoke("list", "formats").stdout)
    assert subprocess.run([sys.executable, "-m", "stabletune", "list", "odd"], capture_output=True).returncode == 2


def test_help_names_every_command():
    text = invoke("--help").stdout
    for command in ("search", "submit", "trial", "compare", "report", "export", "list"):
        assert command in text


def test_json_prints_one_object_and_nothing_else(config, tmp_path):
    done = invoke("search", config, "--output", tmp_path / "out", "--executor", "inline", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == yaml.safe_load((tmp_path / "out" / "recommended.yaml").read_text())


def test_every_mistake_of_a_config_is_shown_with_its_line_and_exit_code_2(config, tmp_path):
    config.write_text(CONFIG.replace("search_space", "serach_space").replace("trials: 4", "trials: 0"))
    done = invoke("search", config, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "config.yaml:6: unknown key `serach_space`. Did you mean `search_space`?" in done.stderr
    assert "config.yaml:7: budget.trials" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_a_workload_that_raises_shows_its_traceback_and_exit_code_2(config, tmp_path):
    (tmp_path / "mine.py").write_text("def build(seed, device):\n    return 1 / 0\n")
    config.write_text(CONFIG.replace("workload: quadratic", "workload: mine.py:build").replace("{jitter: 0.1}", "{}"))
    done = invoke("search", config, "--output", tmp_path / "out", "--executor", "inline")
    assert done.exit_code == 2
    assert "return 1 / 0" in done.stderr
    assert "trial 0, the baseline, must run" in done.stderr


def test_a_folder_in_use_is_exit_code_2(config, run_dir):
    done = invoke("search", config, "--output", run_dir)
    assert done.exit_code == 2
    assert "--resume" in done.stderr


def test_settings_from_the_command_line_replace_the_configs(config, tmp_path):
    done = invoke("search", config, "--output", tmp_path / "out", "--executor", "inline", "--set", "budget.trials=2")
    assert done.exit_code == 0
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["budget"]["trials"] == 2


@pytest.mark.parametrize("name", ["torch", "json", "huggingface", "lightning", "deepspeed", "axolotl", "optax"])
def test_export_prints_the_settings(run_dir, name):
    done = invoke("export", run_dir, "--format", name)
    assert done.exit_code == 0
    assert done.stdout.strip()


def test_export_of_an_unknown_format_and_of_no_search_are_exit_code_2(run_dir, tmp_path):
    assert invoke("export", run_dir, "--format", "excel").exit_code == 2
    assert invoke("export", tmp_path, "--format", "json").exit_code == 2


def test_report_rewrites_the_page(run_dir):
    (run_dir / "report.html").unlink()
    assert invoke("report", run_dir).exit_code == 0
    assert (run_dir / "report.html").exists()


def test_list_knows_its_sections():
    done = invoke("list", "samplers")
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"tpe", "gp", "cmaes", "nsga2", "qmc", "random"}
    assert invoke("list", "nonsense").exit_code == 2
    assert "adam_lr_beta2" in invoke("list").stdout


def test_a_trial_prints_its_outcome_and_writes_its_files(config, tmp_path):
    done = invoke("trial", config, "--param", "lr=1e-2", "--steps", "30", "--seed", "3", "--output", tmp_path / "t")
    assert done.exit_code == 0, done.stderr
    assert "completed all 30 steps" in done.stdout
    assert (tmp_path / "t" / "losses.npy").exists()
    assert (tmp_path / "t" / "measurements.jsonl").exists()


def test_a_key_of_the_config_can_be_replaced_for_one_trial(config):
    done = invoke("trial", config, "--steps", "20", "--set", "signals={every: 10}")
    assert done.exit_code == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("step ")] == ["10", "20"]
    assert "signals.every" in invoke("trial", config, "--set", "signals.every=0").stderr


def test_a_trial_that_spikes_is_exit_code_4(config, tmp_path):
    (tmp_path / "spiky.py").write_text(
        "import torch\nfrom stabletune import Training\n"
        "def build(seed, device):\n"
        "    model = torch.nn.Linear(1, 1)\n"
        "    values = [1.0 + 0.01 * (n % 2) for n in range(100)]\n"
        "    values[25] = 9.0\n"
        "    return Training(model=model, loss_fn=lambda m, b: m.weight.sum() * 0.0 + b, batches=values)\n"
    )
    config.write_text(CONFIG.replace("workload: quadratic", "workload: spiky.py:build").replace("{jitter: 0.1}", "{}"))
    done = invoke("trial", config)
    assert done.exit_code == 4
    assert "spike at step 26" in done.stdout


def test_an_output_that_is_a_file_is_refused_before_the_trial_runs(config):
    done = invoke("trial", config, "--output", config)
    assert done.exit_code == 2
    assert "--output: must be a folder to write in" in done.stderr
    assert "completed" not in done.stderr


def test_wrong_parameters_of_a_trial_are_shown_together(config):
    done = invoke("trial", config, "--param", "lr=-1", "--param", "betta2=0.9", "--param", "lr")
    assert done.exit_code == 2
    assert done.stderr.count("--param") == 3
