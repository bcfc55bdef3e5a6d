from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stabletune.config import load_config
from stabletune.errors import ConfigError
from stabletune.records import WorkloadReference
from stabletune.space import FloatRange

Writer = Callable[..., Path]


def problems_of(path: Path, *overrides: str) -> list[str]:
    """The problems of a config, without the folder it lies in."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides=overrides)
    return [problem.removeprefix(f"{path.parent}/") for problem in caught.value.problems]


def test_the_required_keys_alone_give_the_defaults_of_the_interface(write: Writer) -> None:
    config = load_config(write())
    assert (config.version, config.name, config.seed, config.sampler, config.storage) == (
        1,
        "some-study",
        0,
        "tpe",
        None,
    )
    assert config.budget.model_dump() == {
        "trials": 40,
        "trial_steps": 500,
        "full_steps": 2500,
        "confirm_seeds": 5,
        "seeds_per_trial": 1,
        "wall_minutes": None,
        "trial_minutes": None,
        "checkpoint_minutes": 1.0,
    }
    assert config.objective.model_dump() == {
        "metric": "final_loss",
        "source": "train",
        "target": None,
        "tradeoff": False,
    }
    assert config.warm_start == []
    assert config.schedule.model_dump() == {"name": "constant", "warmup_ratio": 0.0}
    assert config.signals.model_dump() == {
        "overhead": 0.15,
        "every": None,
        "shadow_beta2": None,
        "shadow_exact": False,
        "sharpness": False,
    }
    assert config.resources.model_dump() == {
        "cpus_per_trial": 1,
        "gpus_per_trial": 0,
        "memory_gib_per_trial": None,
        "max_concurrent": None,
        "address": "local",
    }
    assert (config.output, config.baseline, config.workload_args) == ("runs/some-study", {}, {})


def test_the_config_of_the_interface_is_read(write: Writer) -> None:
    text = """
version: 1
name: diabetes-mlp
workload: workload.py:build
workload_args: {width: 64}
seed: 0
search_space: adam_lr_beta2
baseline: {lr: 1.0e-3, beta2: 0.999}
budget:
  trials: 40
  trial_steps: 500
  full_steps: 2500
  confirm_seeds: 5
  wall_minutes: null
  checkpoint_minutes: 1.0
objective: {metric: final_loss, source: train, target: null}
schedule: {name: constant, warmup_ratio: 0.0}
signals: {overhead: 0.15}
sampler: tpe
resources: {cpus_per_trial: 1, gpus_per_trial: 0, max_concurrent: null, address: local}
storage: null
output: runs/diabetes-mlp
"""
    config = load_config(write(text, head=""))
    assert config.workload == WorkloadReference("build", path=str(config.path.parent / "workload.py"))
    assert config.search_space.ranges["lr"] == FloatRange(1e-4, 1e-1, "log")


def test_a_section_left_empty_means_its_defaults(write: Writer) -> None:
    config = load_config(write("budget:\nsignals:\nbaseline:\nworkload_args:\n"))
    assert (config.budget.trials, config.signals.overhead, config.baseline) == (40, 0.15, {})


def test_folders_of_earlier_searches_are_made_absolute(write: Writer) -> None:
    config = load_config(write("warm_start: [runs/first, /elsewhere]\n"))
    assert config.warm_start == [str(Path("runs/first").absolute()), "/elsewhere"]


def test_a_sampler_of_one_objective_is_refused_for_a_tradeoff(write: Writer) -> None:
    with pytest.raises(ConfigError, match=r"sampler: must know two objectives for objective.tradeoff, but got 'cmaes'"):
        load_config(write("objective: {tradeoff: true}\nsampler: cmaes\n"))


def test_all_mistakes_are_shown_together_with_their_lines(write: Writer) -> None:
    text = """\
name: two words
workload: workload.py:train
serach_space: adam_lr_beta2
search_space:
  lr: {low: 1.0e-4, high: 1.0e-1, scale: log}
  beta2: {low: 0.9, high: 1.0, scale: log_one_minus}
baseline: {lr: 0, bta1: 0.9}
budget:
  trials: 0
  trial_steps: 5
  full_steps: yes
  trails: 3
objective: {metric: best}
signals: {overhead: 2}
storage: study.db
colour: red
"""
    assert sorted(problems_of(write(text, head=""))) == sorted(
        [
            "config.yaml:1: name: must be text of at most 255 letters, digits, - and _, but got 'two words'. "
            "Quote a number, a date, yes, no, on, off.",
            "config.yaml:2: workload: must name a function of workload.py, but got 'train'. Defined there: build.",
            "config.yaml:3: unknown key `serach_space`. Did you mean `search_space`?",
            "config.yaml:6: search_space.beta2: 0 < low < high < 1 must hold, but got low=0.9, high=1.0. "
            "Set high to 0.9999 or less.",
            "config.yaml:7: baseline.lr: 0 < lr must hold, but got 0. Give the value in use today.",
            "config.yaml:7: unknown key `baseline.bta1`. Did you mean `baseline.beta1`?",
            "config.yaml:9: budget.trials: must be a whole number, 1 <= n < 2**31, but got 0. Set it to 1 or more.",
            "config.yaml:11: budget.full_steps: must be a whole number, 1 <= n < 2**31, but got true. "
            "Set it to 1 or more.",
            "config.yaml:12: unknown key `budget.trails`. Did you mean `budget.trials`?",
            "config.yaml:13: objective.metric: must be one of final_loss, loss_auc, steps_to_target, but got 'best'. "
            "Name one of them.",
            "config.yaml:14: signals.overhead: must lie in 0 < overhead <= 1, but got 2. 0.15 spends 15 % on top.",
            "config.yaml:15: storage: must be an SQLAlchemy URL, but got 'study.db'. Example: sqlite:///study.db.",
            "config.yaml:16: unknown key `colour`. Known here: version, name, workload, workload_args, seed, "
            "search_space, baseline, budget, objective, schedule, signals, sampler, resources, warm_start, "
            "tensorboard, storage, output.",
        ]
    )


def test_missing_required_keys_are_each_named(write: Writer) -> None:
    assert sorted(problems_of(write("seed: 1\n", head=""))) == [
        "config.yaml: name: must be given, but got nothing. Add `name: ...`.",
        "config.yaml: search_space: must be given, but got nothing. Add `search_space: adam_lr_beta2`.",
        "config.yaml: workload: must be given, but got nothing. Add `workload: workload.py:build`.",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("version: 2", "version: must be 1, but got 2."),
        ("version: true", "version: must be 1, but got true."),
        ("seed: -1", "seed: must be a whole number, 0 <= seed < 2**32, but got -1."),
        ("seed: 1.5", "seed: must be a whole number"),
        ("seed: false", "seed: must be a whole number"),
        ("workload_args: [1]", "workload_args: must map argument names to values, but got [1]."),
        ("baseline: [1]", "baseline: must map hyperparameters to values, but got [1]."),
        ("baseline: {beta1: 1}", "baseline.beta1: 0 <= beta1 < 1 must hold, but got 1."),
        ("baseline: {amsgrad: 1}", "baseline.amsgrad: must be true or false, but got 1."),
        (
            "baseline: {second_moment_reset: 1}",
            "1 < second_moment_reset must hold, or null to switch it off, but got 1.",
        ),
        ("baseline: {beta2_exponent: 1}", "0 < beta2_exponent < 1 must hold, or null to switch it off, but got 1."),
        ("budget: 3", "budget: must be a mapping, but got 3. Its keys: trials, trial_steps,"),
        ("budget: {trial_steps: 3000}", "budget.trial_steps: must be at most full_steps, which is 2500, but got 3000."),
        ("budget: {confirm_seeds: 0}", "budget.confirm_seeds: must be a whole number, 1 <= n < 2**31"),
        ("budget: {wall_minutes: 0}", "budget.wall_minutes: must be null or a number above 0, but got 0."),
        (
            "budget: {checkpoint_minutes: -1}",
            "budget.checkpoint_minutes: must be null or a number of at least 0, but got -1.",
        ),
        ("budget: {trial_minutes: 0}", "budget.trial_minutes: must be null or a number above 0, but got 0."),
        (
            "resources: {memory_gib_per_trial: -1}",
            "resources.memory_gib_per_trial: must be null or a number above 0, but got -1.",
        ),
        ("budget: {wall_minutes: .inf}", "budget.wall_minutes: must be null or a number above 0, but got inf."),
        (
            "objective: {metric: steps_to_target}",
            "objective.target: must be a number for steps_to_target, but got null.",
        ),
        ("objective: {target: .nan}", "objective.target: must be null or a finite number, but got nan."),
        ("objective: {source: test}", "objective.source: must be train or eval, but got 'test'."),
        ("schedule: {name: off}", "schedule.name: must be one of constant, cosine, linear, wsd, but got false."),
        ("schedule: {warmup_ratio: 1}", "schedule.warmup_ratio: must lie in 0 <= share < 1, but got 1."),
        (
            "signals: {overhead: 0.1, every: 5}",
            "signals.every: must not be given together with overhead (0.1), but got 5.",
        ),
        ("signals: {every: 0}", "signals.every: must be a whole number of at least 1, but got 0."),
        (
            "signals: {shadow_beta2: [0.9, 1.5]}",
            "signals.shadow_beta2: must be null or a list of 1 to 8 different numbers, each 0 < beta2 < 1, "
            "but got 1.5.",
        ),
        ("signals: {shadow_beta2: [0.9, 0.9]}", "each 0 < beta2 < 1, but got [0.9, 0.9]."),
        ("signals: {shadow_beta2: []}", "each 0 < beta2 < 1, but got []."),
        ("signals: {shadow_beta2: 0.9}", "each 0 < beta2 < 1, but got 0.9."),
        ("signals: {shadow_beta2: [true]}", "each 0 < beta2 < 1, but got true."),
        ("signals: {shadow_exact: 1}", "signals.shadow_exact: must be true or false, but got 1."),
        ("signals: {sharpness: 1}", "signals.sharpness: must be true or false, but got 1."),
        ("signals: {shadow_exact: true}", "signals.shadow_exact: must not be true without shadow_beta2, but got true."),
        (
            "signals: {shadow_beta2: [0.9]}\nbaseline: {second_moment_clip: 5000.0}",
            "signals.shadow_beta2: must be null with second_moment_clip in search_space or baseline, which clips by v "
            "itself, but got [0.9].",
        ),
        (
            "signals: {shadow_beta2: [0.9]}\nbaseline: {beta2_exponent: 0.8}",
            "signals.shadow_beta2: must be null with beta2_exponent in search_space or baseline, which sets beta2 anew "
            "at each step, but got [0.9].",
        ),
        ("signals: {overhead: 0}", "signals.overhead: must lie in 0 < overhead <= 1, but got 0."),
        ("signals: {overhead: true}", "signals.overhead: must lie in 0 < overhead <= 1, but got true."),
        ("sampler: hyperband", "sampler: must be one of cmaes, gp, nsga2, qmc, random, tpe, but got 'hyperband'."),
        ("resources: {cpus_per_trial: 0}", "resources.cpus_per_trial: must be a number above 0, but got 0."),
        ("resources: {gpus_per_trial: 1.5}", "resources.gpus_per_trial: must be whole above 1, but got 1.5."),
        ("resources: {max_concurrent: 0}", "resources.max_concurrent: must be null or a whole number of at least 1"),
        ("resources: {address: 10.0.0.1}", "resources.address: must be local, auto, HOST:PORT or ray://HOST:PORT"),
        ("resources: {address: null}", "resources.address: must be local, auto, HOST:PORT or ray://HOST:PORT"),
        ("storage: 3", "storage: must be null or an SQLAlchemy URL, but got 3."),
        ("storage: ${STABLETUNE_ABSENT}", "the environment variable STABLETUNE_ABSENT must be set, but got none"),
        ("output: 3", "output: must be the path of a folder, but got 3."),
        ("output: ''", "output: must be the path of a folder, but got ''."),
    ],
)
def test_a_value_that_breaks_a_rule_says_which_and_where(write: Writer, line: str, said: str) -> None:
    (problem,) = problems_of(write(line + "\n"))
    assert problem.startswith("config.yaml:4: ")
    assert said in problem


@pytest.mark.parametrize(
    "line",
    [
        "signals: {every: 10}",
        "signals: {overhead: null, every: 10}",
        "signals: {overhead: 1e-2}",
        "objective: {metric: steps_to_target, target: 1e-3}",
        "budget: {trial_steps: 1, full_steps: 1, trials: 1, confirm_seeds: 1, wall_minutes: 0.5}",
        "budget: {full_steps: 1e4}",
        "resources: {gpus_per_trial: 0.25, cpus_per_trial: 0.5, address: auto}",
        "resources: {gpus_per_trial: 2, address: 'head-node:6379'}",
        "resources: {address: 'ray://10.0.0.1:10001'}",
        "baseline: {lr: 1e-3, eps: 0, beta1: 0, max_grad_norm: 1, amsgrad: true, second_moment_reset: 2}",
        "baseline: {lr: 5.0, workload_args.width: 3}",
        "storage: sqlite:///study.db",
    ],
)
def test_a_value_that_keeps_the_rules_is_read(write: Writer, line: str) -> None:
    assert load_config(write(line + "\n"))


def test_scientific_notation_without_a_dot_is_a_number_everywhere(write: Writer) -> None:
    head = "name: n\nworkload: workload.py:build\nsearch_space: {lr: {low: 1e-5, high: 1e-1, scale: log}}\n"
    config = load_config(write("baseline: {lr: 1e-3}\nworkload_args: {noise: 1e-2}\n", head=head))
    assert config.search_space.ranges["lr"] == FloatRange(1e-5, 1e-1, "log")
    assert config.baseline == {"lr": 1e-3}
    assert config.workload_args == {"noise": 1e-2}


def test_overrides_replace_and_are_named_when_they_are_wrong(write: Writer) -> None:
    path = write("budget: {trials: 5}\n")
    assert load_config(path, overrides=["budget.trials=10", "baseline.lr=1e-2"]).budget.trials == 10
    assert problems_of(path, "budget.trials=0", "seeed=1") == [
        "--set budget.trials=0: budget.trials: must be a whole number, 1 <= n < 2**31, but got 0. Set it to 1 or more.",
        "--set seeed=1: unknown key `seeed`. Did you mean `seed`?",
    ]


def test_an_override_can_replace_the_whole_search_space(write: Writer) -> None:
    config = load_config(write(), overrides=["search_space={eps: {choices: [1e-8, 1e-6]}}"])
    assert list(config.search_space.ranges) == ["eps"]


def test_the_output_given_by_the_caller_wins(write: Writer, tmp_path: Path) -> None:
    assert load_config(write("output: runs/x\n"), output="runs/y").output == "runs/y"
    assert load_config(write("output: 3\n"), output=tmp_path).output == str(tmp_path)


def test_storage_reads_the_environment_and_never_keeps_it(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STABLETUNE_TEST_PASSWORD", "open-sesame")
    config = load_config(write("storage: postgresql://me:${STABLETUNE_TEST_PASSWORD}@host/db\n"))
    assert config.storage_url == "postgresql://me:open-sesame@host/db"
    assert config.storage == "postgresql://me:${STABLETUNE_TEST_PASSWORD}@host/db"
    assert "open-sesame" not in repr(config) + repr(config.resolved())


def test_a_search_space_beside_the_config_is_found_from_any_folder(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space.yaml").write_text("lr: {low: 0.1, high: 1}\n")
    path = write(head="name: n\nworkload: workload.py:build\nsearch_space: space.yaml\n")
    monkeypatch.chdir("/")
    assert load_config(path).search_space.ranges == {"lr": FloatRange(0.1, 1.0)}


def test_an_unknown_search_space_names_the_line(write: Writer) -> None:
    path = write(head="name: n\nworkload: workload.py:build\nsearch_space: adam_lr_bta2\n")
    assert problems_of(path) == [
        "config.yaml:3: search_space: must be a name, an existing file or a mapping, but got 'adam_lr_bta2'. "
        "Did you mean `adam_lr_beta2`?"
    ]


def test_workload_arguments_are_checked_against_the_function(write: Writer) -> None:
    head = "name: n\nworkload: workload.py:build\nsearch_space: {workload_args.depth: {low: 1, high: 4}}\n"
    path = write(
        "workload_args: {wdth: 3}\nbaseline: {workload_args.width: 2}\n",
        head=head,
        workload="def build(seed, device, *, width): ...\n",
    )
    found = "but got build(seed, device, *, width). Keywords: width."
    assert problems_of(path) == [
        f"config.yaml:2: workload: must take workload_args.wdth, {found}",
        f"config.yaml:2: workload: must take workload_args.depth, {found}",
    ]


def test_reading_a_config_imports_neither_torch_nor_ray_nor_the_workload(write: Writer) -> None:
    path = write(workload="raise SystemExit('imported')\ndef build(seed, device): ...\n")
    code = (
        "import sys; from stabletune.config import load_config; load_config(sys.argv[1]); "
        "sys.exit(bool({'torch', 'ray', 'optuna', 'sklearn', 'workload'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2]).returncode == 0
