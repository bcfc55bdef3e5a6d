"""Configs with one mistake each: what is written, the key at fault, and what must be said of it.

What is written replaces the keys of ``GOOD`` that it names, so that every row differs from a config that runs by its
mistake alone. A row of bytes is the whole file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

GOOD = {
    "name": "name: study",
    "workload": "workload: quadratic",
    "search_space": "search_space: adam_lr_beta2",
    "budget": "budget: {trials: 1, trial_steps: 20, full_steps: 40, confirm_seeds: 1}",
}
FOLDER = None  # a file of a row that is a folder
BUILD = "def build(seed, device):\n    ...\n"


@dataclasses.dataclass(frozen=True)
class Bad:
    """One bad config, the files beside it, and the arguments that follow it on the command line."""

    written: str | bytes
    key: str
    said: str
    files: Mapping[str, str | bytes | None] = dataclasses.field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def content(self) -> bytes:
        """The bytes of the config."""
        if isinstance(self.written, bytes):
            return self.written
        named = set(re.findall(r"^(\w+):", self.written, re.MULTILINE))
        kept = [line for key, line in GOOD.items() if key not in named]
        return "\n".join([*kept, self.written, ""]).encode()


def rows(*written: tuple[str | bytes, str, str]) -> list[Bad]:
    return [Bad(*row) for row in written]


def lines(*more: str) -> bytes:
    return "\n".join([*GOOD.values(), *more, ""]).encode()


def workload(source: str | bytes, said: str, more: str = "") -> Bad:
    key = "trial 0, the baseline" if "building: " in said else "workload"  # what only running it shows
    return Bad(f"workload: mine.py:build\n{more}", key, said, {"mine.py": source})


def space(source: str | bytes, key: str, said: str) -> Bad:
    return Bad("search_space: mine.yaml", key, said, {"mine.yaml": source})


def override(text: str, key: str, said: str) -> Bad:
    return Bad("", key, said, arguments=("--set", text))


LAUGHS = "workload_args:\n  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"  {key}: &{key} [{', '.join([f'*{below}'] * 9)}]\n" for below, key in zip("abcdefgh", "bcdefghi", strict=True)
)
WHOLE = "must be a whole number, 1 <= n < 2**31, but got "
DATE = "must be a number, text, true, false, null, or a list or mapping of these, but got "
PLAIN = "must be written as a decimal number, but got "
NAME = "must be text of at most 255 letters, digits, - and _, but got "
SEED = "must be a whole number, 0 <= seed < 2**32, but got "
FROM_ONE = "must be a whole number of at least 1, but got "
OR_NULL = "must be null or a number above 0, but got "
SWITCH = "must be true or false, but got "
SHADOWS = "must be null or a list of 1 to 8 different numbers, each 0 < beta2 < 1, but got "
URL = "must be an SQLAlchemy URL of a database it knows, but got "
DATABASE = "must be a database that can be opened, but got "
ADDRESS = "must be local, auto, HOST:PORT or ray://HOST:PORT, but got "
PATH = "must be the path of a folder, but got "
EARLIER = "must be a list of folders of earlier searches, but got "

BAD: dict[str, list[Bad]] = {
    "the file": rows(
        (b"", "config.yaml", "must be a mapping of keys to values, but got an empty file."),
        (b"# only words\n", "config.yaml", "must be a mapping of keys to values, but got an empty file."),
        (b"- name: study\n", "config.yaml", "must be a mapping of keys to values, but got [{name: study}]."),
        (b"name\n", "config.yaml", "must be a mapping of keys to values, but got 'name'."),
        (lines("---", "name: other"), "config.yaml:5", "must hold one document, but got a second one."),
        (lines("schedule:", "\tname: cosine"), "config.yaml:6", "Indent with spaces, not with tabs."),
        (lines("seed: [1, 2"), "config.yaml:6", "must be valid YAML, but got: expected ',' or ']'"),
        (lines("seed: *nowhere"), "config.yaml:5", "must be valid YAML, but got: found undefined alias 'nowhere'."),
        (lines("seed: 1: 2"), "config.yaml:5", "must be valid YAML, but got: mapping values are not allowed here."),
        (lines("seed: 'open"), "config.yaml:6", "must be valid YAML, but got: found unexpected end of stream."),
        (lines("signals: {<<: 3}"), "config.yaml:5", "must be valid YAML, but got: expected a mapping or list"),
        (lines("seed: \0"), "config.yaml:5", "must be valid YAML, but got the character U+0000. Remove it."),
        (lines() + b"sampler: \xff\n", "config.yaml:5", "bytes that are not UTF-8. Save it as UTF-8."),
        (lines().decode().encode("utf-16"), "config.yaml:1", "bytes that are not UTF-8. Save it as UTF-8."),
        (lines("#" * 10_000_000), "config.yaml", "must be at most 256 KiB, but got a larger file. Check the path."),
        (
            lines("workload_args: " + "[" * 10_000),
            "config.yaml",
            "must be nested at most 32 levels deep, but got more.",
        ),
        (LAUGHS, "workload_args.", "must hold at most 100000 values, but got more. Remove aliases that hold aliases."),
        ("workload_args: {a: " + "[" * 40 + "]" * 40 + "}", "workload_args.a[0]", "must be nested at most 32 levels"),
        ("workload_args: &a {start: *a}", "workload_args.start", "must not contain itself, but an alias in it does."),
        ("seed: 1\nseed: 2", "seed", "must be written once, but got it on line 5 too."),
        ("budget: {trials: 1, trials: 2}", "budget.trials", "must be written once, but got it on line 4 too."),
        ("1: 2", "config.yaml:5", "a key must be text, but got '1'. Put it in quotes."),
        ("signals: {on: 0.1}", "signals", "a key must be text, but got 'on'. Put it in quotes."),
        ("signals: {[1]: 0.1}", "signals", "a key must be text, but got 'a list or a mapping'."),
        ("seed: !!python/object/apply:os.getpid []", "seed", "must be written without a tag, but got !!python/object/"),
        ("seed: !!int '3'", "seed", "must be written without a tag, but got !!int."),
        ("seed: !mine 3", "seed", "must be written without a tag, but got !mine."),
        ("seed: 0777", "seed", PLAIN + "0777, which YAML reads as 511. Write 511."),
        (
            "workload_args: {since: 007}",
            "workload_args.since",
            PLAIN + "007, which YAML reads as 7. Write 7, or put it in",
        ),
        (
            "search_space: {lr: {low: 007}}",
            "search_space.lr.low",
            PLAIN + "007, which YAML reads as 7. Write 7.",
        ),
        (
            "workload_args: {start: [1, {a: 2020-01-01}]}",
            "workload_args.start[1].a",
            DATE + "2020-01-01. Put a date in",
        ),
        (
            "baseline: {workload_args.start: 2020-01-01 10:00:00}",
            "baseline.workload_args.start",
            DATE + "2020-01-01 10:",
        ),
        ("budget: {wall_minutes: 1:30}", "budget.wall_minutes", PLAIN + "1:30, which YAML reads as 90. Write 90"),
        ("seed: " + "1" * 5000, "seed", "must be a value that can be read, but got '1111"),
        (
            "name: 2026-13-45",
            "name",
            "must be a value that can be read, but got '2026-13-45' (month must be in 1..12).",
        ),
        ('workload_args: {"\\ud800": 1}', "workload_args", "a key must be text, but got '\\ud800'."),
        ('workload_args: {start: "\\ud800"}', "workload_args.start", "must be a value that can be read, but got "),
    ),
    "top": rows(
        ("serach_space: adam_lr_beta2", "serach_space", "unknown key `serach_space`. Did you mean `search_space`?"),
        ("SEED: 3", "SEED", "unknown key `SEED`. Did you mean `seed`?"),
        ("colour: red", "colour", "unknown key `colour`. Known here: version, name, workload,"),
        ("version: 2", "version", "must be 1, but got 2. This stabletune reads version 1 only."),
        ("version: true", "version", "must be 1, but got true."),
        ("version: '1'", "version", "must be 1, but got '1'."),
        ("name:", "name", NAME + "null."),
        ("name: two words", "name", NAME + "'two words'."),
        ("name: ../up", "name", NAME + "'../up'."),
        ("name: ''", "name", NAME + "''."),
        ("name: 42", "name", NAME + "42. Quote a number"),
        ("name: no", "name", NAME + "false. Quote a number, a date, yes, no"),
        ("name: 2026-10-05", "name", NAME + "2026-10-05. Quote a number, a date"),
        ("name: " + "x" * 300, "name", NAME + "'xxx"),
        ("seed: 'seven'", "seed", SEED + "'seven'. 0 is as good"),
        ("budget: {wall_minutes: '1e3'}", "budget.wall_minutes", OR_NULL + "'1e3'. Remove the quotes."),
        ("budget: {wall_minutes: 'inf'}", "budget.wall_minutes", OR_NULL + "'inf'. null sets no limit."),
        ("seed: -1", "seed", SEED + "-1."),
        ("seed: 4294967296", "seed", SEED + "4294967296."),
        ("seed: 1.5", "seed", SEED + "1.5."),
        ("seed: .nan", "seed", SEED + "nan."),
        ("seed: 1e400", "seed", SEED + "inf."),
        ("seed: '3'", "seed", SEED + "'3'. Remove the quotes."),
        ("seed: yes", "seed", SEED + "true."),
        ("seed: 0o17", "seed", SEED + "'0o17'."),
        ("seed: [3]", "seed", SEED + "[3]."),
        ("seed:", "seed", SEED + "null."),
        ("sampler: hyperband", "sampler", "must be one of cmaes, gp, nsga2, qmc, random, tpe, but got 'hyperband'."),
        ("sampler: [tpe]", "sampler", "must be one of cmaes, gp, nsga2, qmc, random, tpe, but got [tpe]."),
        ("tensorboard: 1", "tensorboard", SWITCH + "1."),
        ("tensorboard: 'yes'", "tensorboard", SWITCH + "'yes'."),
    ),
    "budget": rows(
        ("budget: 3", "budget", "must be a mapping, but got 3. Its keys: trials,"),
        ("budget: [trials, 3]", "budget", "must be a mapping, but got [trials, 3]. Its keys: trials,"),
        ("budget: {trails: 3}", "budget.trails", "unknown key `budget.trails`. Did you mean `budget.trials`?"),
        ("budget: {trials: 0}", "budget.trials", WHOLE + "0."),
        ("budget: {trials: -3}", "budget.trials", WHOLE + "-3."),
        ("budget: {trials: many}", "budget.trials", WHOLE + "'many'."),
        ("budget: {trials: '40'}", "budget.trials", WHOLE + "'40'. Remove the quotes."),
        ("budget: {trials: true}", "budget.trials", WHOLE + "true."),
        ("budget: {trials: null}", "budget.trials", WHOLE + "null."),
        ("budget: {trials: 2.5}", "budget.trials", WHOLE + "2.5."),
        ("budget: {trials: 1e400}", "budget.trials", WHOLE + "inf."),
        ("budget: {trials: 2147483648}", "budget.trials", WHOLE + "2147483648."),
        ("budget: {trials: {low: 1}}", "budget.trials", WHOLE + "{low: 1}."),
        ("budget: {trial_steps: 0}", "budget.trial_steps", WHOLE + "0."),
        ("budget: {trial_steps: 41, full_steps: 40}", "budget.trial_steps", "must be at most full_steps, which is 40,"),
        ("budget: {full_steps: .nan}", "budget.full_steps", WHOLE + "nan."),
        ("budget: {full_steps: 1" + "0" * 30 + "}", "budget.full_steps", WHOLE + "1000000"),
        ("budget: {confirm_seeds: 0}", "budget.confirm_seeds", WHOLE + "0."),
        ("budget: {seeds_per_trial: 0.5}", "budget.seeds_per_trial", WHOLE + "0.5."),
        ("budget: {wall_minutes: 0}", "budget.wall_minutes", OR_NULL + "0."),
        ("budget: {wall_minutes: 1 hour}", "budget.wall_minutes", OR_NULL + "'1 hour'."),
        ("budget: {trial_minutes: .inf}", "budget.trial_minutes", OR_NULL + "inf."),
        ("budget: {checkpoint_minutes: -1}", "budget.checkpoint_minutes", "must be null or a number of at least 0,"),
    ),
    "objective": rows(
        ("objective: final_loss", "objective", "must be a mapping, but got 'final_loss'. Its keys: metric,"),
        ("objective: {metrik: loss_auc}", "objective.metrik", "Did you mean `objective.metric`?"),
        ("objective: {metric: best}", "objective.metric", "must be one of final_loss, loss_auc, steps_to_target, but"),
        ("objective: {metric: null}", "objective.metric", "steps_to_target, but got null."),
        ("objective: {metric: steps_to_target}", "objective.target", "must be a number for steps_to_target, but got"),
        ("objective: {target: .nan}", "objective.target", "must be null or a finite number, but got nan."),
        ("objective: {target: low}", "objective.target", "must be null or a finite number, but got 'low'."),
        ("objective: {source: test}", "objective.source", "must be train or eval, but got 'test'."),
        ("objective: {tradeoff: 1}", "objective.tradeoff", SWITCH + "1."),
        ("objective: {tradeoff: true}\nsampler: cmaes", "sampler", "must know two objectives for objective.tradeoff,"),
    ),
    "schedule": rows(
        ("schedule: {name: off}", "schedule.name", "must be one of constant, cosine, linear, wsd, but got false."),
        ("schedule: {name: polynomial}", "schedule.name", "linear, wsd, but got 'polynomial'."),
        ("schedule: {warmup_ratio: 1}", "schedule.warmup_ratio", "must lie in 0 <= share < 1, but got 1."),
        ("schedule: {warmup_ratio: -0.1}", "schedule.warmup_ratio", "must lie in 0 <= share < 1, but got -0.1."),
        ("schedule: {warmup_ratio: 5 %}", "schedule.warmup_ratio", "must lie in 0 <= share < 1, but got '5 %'."),
        ("schedule: {warmup: 0.1}", "schedule.warmup", "Did you mean `schedule.warmup_ratio`?"),
    ),
    "signals": rows(
        ("signals: {overhead: 0}", "signals.overhead", "must lie in 0 < overhead <= 1, but got 0."),
        ("signals: {overhead: 1.1}", "signals.overhead", "must lie in 0 < overhead <= 1, but got 1.1."),
        (
            "signals: {overhead: '0.1'}",
            "signals.overhead",
            "must lie in 0 < overhead <= 1, but got '0.1'. Remove the quotes.",
        ),
        ("signals: {every: 0}", "signals.every", FROM_ONE + "0."),
        ("signals: {every: 1.5}", "signals.every", FROM_ONE + "1.5."),
        ("signals: {overhead: 0.1, every: 5}", "signals.every", "must not be given together with overhead (0.1),"),
        ("signals: {evry: 5}", "signals.evry", "Did you mean `signals.every`?"),
        ("signals: {shadow_beta2: [0.9, 0.9]}", "signals.shadow_beta2", SHADOWS + "[0.9, 0.9]."),
        ("signals: {shadow_beta2: [1]}", "signals.shadow_beta2", SHADOWS + "1."),
        ("signals: {shadow_beta2: 0.9}", "signals.shadow_beta2", SHADOWS + "0.9."),
        ("signals: {shadow_beta2: []}", "signals.shadow_beta2", SHADOWS + "[]."),
        ("signals: {shadow_exact: true}", "signals.shadow_exact", "must not be true without shadow_beta2,"),
        ("signals: {shadow_exact: 'no'}", "signals.shadow_exact", SWITCH + "'no'."),
        ("signals: {sharpness: 0}", "signals.sharpness", SWITCH + "0."),
        (
            "signals: {shadow_beta2: [0.9]}\nbaseline: {beta2_exponent: 0.8}",
            "signals.shadow_beta2",
            "must be null with beta2_exponent in search_space or baseline,",
        ),
    ),
    "resources": [
        *rows(
            ("resources: 4", "resources", "must be a mapping, but got 4. Its keys: cpus_per_trial,"),
            ("resources: {cpus_per_trail: 1}", "resources.cpus_per_trail", "Did you mean `resources.cpus_per_trial`?"),
            ("resources: {cpus_per_trial: 0}", "resources.cpus_per_trial", "must be a number above 0, but got 0."),
            (
                "resources: {cpus_per_trial: all}",
                "resources.cpus_per_trial",
                "must be a number above 0, but got 'all'.",
            ),
            ("resources: {gpus_per_trial: -1}", "resources.gpus_per_trial", "must be a number of at least 0, but got"),
            ("resources: {gpus_per_trial: 1.5}", "resources.gpus_per_trial", "must be whole above 1, but got 1.5."),
            ("resources: {memory_gib_per_trial: 0}", "resources.memory_gib_per_trial", OR_NULL + "0."),
            ("resources: {memory_gib_per_trial: 4GB}", "resources.memory_gib_per_trial", OR_NULL + "'4GB'."),
            (
                "resources: {max_concurrent: 0}",
                "resources.max_concurrent",
                "must be null or a whole number of at least",
            ),
            ("resources: {address: 10.0.0.1}", "resources.address", ADDRESS + "'10.0.0.1'."),
            ("resources: {address: 'head:0'}", "resources.address", ADDRESS + "'head:0'."),
            ("resources: {address: 'head:65536'}", "resources.address", ADDRESS + "'head:65536'."),
            ("resources: {address: 'http://head:6379'}", "resources.address", ADDRESS + "'http://head:6379'."),
            ("resources: {address: null}", "resources.address", ADDRESS + "null."),
        ),
        Bad(
            "", "executor", "must be ray_tune, inline or a file like them, but got 'dask'.", {}, ("--executor", "dask")
        ),
    ],
    "baseline": rows(
        ("baseline: 0.001", "baseline", "must map hyperparameters to values, but got 0.001."),
        ("baseline: {bta1: 0.9}", "baseline.bta1", "unknown key `baseline.bta1`. Did you mean `baseline.beta1`?"),
        ("baseline: {lr: 0}", "baseline.lr", "0 < lr must hold, but got 0."),
        ("baseline: {lr: 1e400}", "baseline.lr", "0 < lr must hold, but got inf."),
        ("baseline: {lr: .nan}", "baseline.lr", "0 < lr must hold, but got nan."),
        ("baseline: {lr: '1e-3'}", "baseline.lr", "0 < lr must hold, but got '1e-3'."),
        ("baseline: {lr: null}", "baseline.lr", "0 < lr must hold, but got null."),
        ("baseline: {beta2: 1}", "baseline.beta2", "0 <= beta2 < 1 must hold, but got 1."),
        ("baseline: {eps: -1e-8}", "baseline.eps", "0 <= eps must hold, but got -1e-08."),
        ("baseline: {amsgrad: 1}", "baseline.amsgrad", SWITCH + "1."),
        ("baseline: {max_grad_norm: 0}", "baseline.max_grad_norm", "0 < max_grad_norm must hold, or null to switch it"),
        ("baseline: {workload_args.strat: 1}", "workload_args.strat", "workload: must take workload_args.strat,"),
    ),
    "search_space": [
        *rows(
            ("search_space:", "search_space", "must be given, but got nothing. Add `search_space: adam_lr_beta2`."),
            ("search_space: adam_lr_bta2", "search_space", "must be a name, an existing file or a mapping, but got"),
            ("search_space: .", "search_space", "must be a name, an existing file or a mapping, but got '.'."),
            ("search_space: [lr]", "search_space", "must map hyperparameters to ranges, but got [lr]."),
            ("search_space: {}", "search_space", "must map hyperparameters to ranges, but got {}."),
            ("search_space: {lrr: {low: 1, high: 2}}", "search_space.lrr", "Did you mean `search_space.lr`?"),
            ("search_space: {lr: 0.1}", "search_space.lr", "must be {low, high, scale} or {choices: [...]}, but got"),
            ("search_space: {lr: {low: 1}}", "search_space.lr.high", "must be a finite number, but got null."),
            ("search_space: {lr: {low: a, high: 1}}", "search_space.lr.low", "must be a finite number, but got 'a'."),
            (
                "search_space: {lr: {low: 1, high: .inf}}",
                "search_space.lr.high",
                "must be a finite number, but got inf",
            ),
            ("search_space: {lr: {low: yes, high: 2}}", "search_space.lr.low", "must be a finite number, but got true"),
            ("search_space: {lr: {low: 2, high: 1}}", "search_space.lr", "0 < low < high must hold, but got low=2,"),
            ("search_space: {lr: {low: 1, high: 1}}", "search_space.lr", "Set low below high. A single value belongs"),
            ("search_space: {eps: {low: 0, high: 1, scale: log}}", "search_space.eps", "0 < low < high must hold, but"),
            (
                "search_space: {lr: {low: 1, high: 2, scale: lg}}",
                "search_space.lr.scale",
                "must be one of linear, log,",
            ),
            ("search_space: {lr: {low: 1, high: 2, step: 1}}", "search_space.lr.step", "Known here: low, high, scale."),
            ("search_space: {beta2: {low: 0.9, high: 1}}", "search_space.beta2", "0 <= low < high < 1 must hold, but"),
            ("search_space: {amsgrad: {low: 0, high: 1}}", "search_space.amsgrad", "must be {choices: [true, false]},"),
            ("search_space: {lr: {choices: []}}", "search_space.lr.choices", "must be a list of at least one value,"),
            ("search_space: {lr: {choices: 0.1}}", "search_space.lr.choices", "at least one value, but got 0.1."),
            ("search_space: {lr: {choices: [1, 1.0]}}", "search_space.lr.choices[1]", "must be different from the"),
            (
                "search_space: {lr: {choices: [0.1, [1]]}}",
                "search_space.lr.choices[1]",
                "must be a finite number, text,",
            ),
            (
                "search_space: {lr: {choices: [0.1]}}",
                "search_space",
                "must leave something to be searched, but got one",
            ),
            (
                "search_space: {workload_args.start: {low: -1e308, high: 1e308}}",
                "search_space.workload_args.start.high",
                "must be at most 1.8e+308 above low, which is -1e+308, but got 1e+308.",
            ),
            (
                "search_space: {workload_args.strat: {low: 1, high: 2}}",
                "workload_args.strat",
                "must take workload_args.strat, but got build(",
            ),
        ),
        Bad("search_space: absent.yaml", "search_space", "must be a name, an existing file or a mapping, but got 'abs"),
        Bad("search_space: here", "search_space", "an existing file or a mapping, but got 'here'.", {"here": FOLDER}),
        space("- lr\n", "mine.yaml", "must be a mapping of keys to values, but got [lr]."),
        space("version: 1\n", "mine.yaml", "search space: must map hyperparameters to ranges, but got {}."),
        space("version: 7\nlr: {low: 1, high: 2}\n", "mine.yaml:1: version", "must be 1, but got 7."),
        space("lr: {low: 1\n", "mine.yaml:2", "must be valid YAML, but got: expected ',' or '}'"),
        space(b"\xff\xfe", "mine.yaml:1", "bytes that are not UTF-8."),
        space(
            "lr: {low: 1, high: 2}\nbeta2: {low: 0, high: 2}\n", "mine.yaml:2: beta2", "0 <= low < high < 1 must hold"
        ),
        space("lr: {low: 1, high: 2}\nlr: {low: 1, high: 3}\n", "mine.yaml:2: lr", "must be written once, but got it"),
    ],
    "workload": [
        *rows(
            ("workload:", "workload", "must be given, but got nothing. Add `workload: workload.py:build`."),
            ("workload: [a.py]", "workload", "must be text, but got [a.py]."),
            (
                "workload: quadratik",
                "workload",
                "must be FILE.py:FUNCTION, package.module:function or a built-in name,",
            ),
            ("workload: absent.py:build", "workload", "must name an existing file ("),
            ("workload: absent.tasks:build", "workload", "must name an importable module (absent.tasks is none),"),
            ("workload: 'absent.py:'", "workload", "must end in :FUNCTION, but got 'absent.py:'."),
            ("workload_args: [1]", "workload_args", "must map argument names to values, but got [1]."),
            ("workload_args: {strat: 1}", "workload", "must take workload_args.strat, but got build("),
            ("workload_args: {seed: 1}", "workload", "must take workload_args.seed, but got build("),
            ("workload_args: {dtype: float8}", "workload_args.dtype", "must be float32 or float64, but got 'float8'."),
        ),
        Bad("workload: here.py:build", "workload", "must name an existing file (", {"here.py": FOLDER}),
        workload("x = 1\ndef build(:\n", "must be valid Python, but got: invalid syntax ("),
        workload("x = 1\0", "must be valid Python, but got: "),
        workload(f"x = {'-' * 100_000}1\n{BUILD}", "must be valid Python, but got: more nesting than Python parses ("),
        workload(
            "def other(seed, device): ...\n", "must name a function of mine.py, but got 'build'. Defined there: o"
        ),
        workload("async def build(seed, device): ...\n", "must name a plain function, but got async def build."),
        workload("def build(): ...\n", "must take seed and device as its first arguments, but got build()."),
        workload(
            "def build(seed, device, width): ...\n", "must have a value for every argument, but got none for width"
        ),
        workload(BUILD, "must take workload_args.width, but got build(seed, device).", "workload_args: {width: 3}"),
        workload("build = 3\n", "mine.py must define a function build, but it has none."),
        workload(BUILD, "building: build: must return a stabletune.Training, but got NoneType."),
        workload(f"import no_such_package\n{BUILD}", "building: the workload raised ModuleNotFoundError: No module na"),
        workload(f"raise OSError('no disk')\n{BUILD}", "building: the workload raised OSError: no disk"),
        workload(f"raise SystemExit(0)\n{BUILD}", "building: the workload raised SystemExit: 0"),
        workload(
            "def build(seed, device, *, width=3):\n    return range(width)\n",
            "building: the workload raised TypeError: 'str' object cannot be interpreted as an integer",
            "workload_args: {width: wide}",
        ),
    ],
    "storage": [
        *rows(
            ("storage: 3", "storage", "must be null or an SQLAlchemy URL, but got 3."),
            ("storage: ''", "storage", "must be null or an SQLAlchemy URL, but got ''."),
            ("storage: study.db", "storage", "must be an SQLAlchemy URL, but got 'study.db'."),
            ("storage: ${STABLETUNE_ABSENT}", "storage", "the environment variable STABLETUNE_ABSENT must be set,"),
            ("storage: '://'", "storage", URL + "ArgumentError: Could not parse SQLAlchemy URL"),
            ("storage: oracel://host/study", "storage", URL + "NoSuchModuleError: Can't load plugin: sqlalchemy.diale"),
            ("storage: redis://host", "storage", URL + "NoSuchModuleError: Can't load plugin: sqlalchemy.dialects:re"),
            ("storage: postgresql://host:port/study", "storage", URL + "ValueError: invalid literal for int()"),
            ("storage: sqlite://host/study.db", "storage", DATABASE + "ArgumentError: Invalid SQLite URL"),
            (
                "storage: sqlite:///absent/study.db",
                "storage",
                DATABASE + "OperationalError: (sqlite3.OperationalError)",
            ),
        ),
        Bad("storage: sqlite:///it", "storage", DATABASE + "DatabaseError: (sqlite3.DatabaseError)", {"it": "no" * 99}),
        Bad("storage: sqlite:///it", "storage", DATABASE + "OperationalError: (sqlite3.Op", {"it": FOLDER}),
    ],
    "output": [
        *rows(
            ("output: 3", "output", PATH + "3."),
            ("output: ''", "output", PATH + "''."),
            ("output: [runs]", "output", PATH + "[runs]."),
            ('output: "a\\0b"', "output", PATH + "'a\\x00b'."),
            ("output: ~nobody-of-this-name/runs", "output", PATH + "'~nobody-of-this-name/runs'."),
            ("output: " + "x" * 300, "output", PATH + "'xxx"),
            ("output: /dev/null/runs", "output", "must be a folder to write in, but got not a directory."),
            ("warm_start: runs/first", "warm_start", EARLIER + "'runs/first'."),
            ("warm_start: [3]", "warm_start", EARLIER + "3."),
            ("warm_start: ['']", "warm_start", EARLIER + "''."),
            ("warm_start: [~nobody-of-this-name]", "warm_start", EARLIER + "'~nobody-of-this-name'."),
            ("warm_start: [absent]", "warm_start[0]", "must be the output folder of an earlier search, but got "),
        ),
        Bad("output: it", "output", "it must be a folder to write in, but got not a directory.", {"it": ""}),
        Bad("output: it", "output", "it holds recommended.yaml, which a search would", {"it/recommended.yaml": ""}),
        Bad("output: it", "output", "it holds another search", {"it/config.yaml": "", "it/trials": FOLDER}),
        Bad("", "output", PATH + "'xxx", arguments=("--output", "x" * 300)),
    ],
    "--set": [
        override("budget.trials", "--set budget.trials", "must read key.key=value, but got 'budget.trials'."),
        override("budget.trials=0", "budget.trials", WHOLE + "0."),
        override("budget.trails=3", "budget.trails", "unknown key `budget.trails`. Did you mean `budget.trials`?"),
        override("name.first=3", "--set name.first=3", "name must be a mapping to set a key in it, but got 'study'."),
        override("seed=[1", "--set seed=[1", "must be valid YAML, but got '[1'. Quote it for the shell."),
        override("seed=010", "--set seed=010", PLAIN + "010, which YAML reads as 8."),
        override("seed=!!int '1'", "--set seed=", "must be written without a tag, but got !!int."),
        override(
            "budget={trials: 1, trials: 2}", "--set budget=", "trials: must be written once, but got it on line 1"
        ),
        override(
            "workload_args=&a {start: *a}", "--set workload_args=", "start: must not contain itself, but an alias"
        ),
        override("seed=" + "[" * 5000, "--set seed=[[[", "must be valid YAML, but got '[[["),
    ],
}
