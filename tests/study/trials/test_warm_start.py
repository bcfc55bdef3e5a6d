import shutil

import pytest

from stabletune.config import load_config
from stabletune.errors import ConfigError, OutputFolderError
from stabletune.study.sharing.storage import read_study
from stabletune.study.trials.warm_start import learn
from tests.study.running import rows_of, run


def after(folder):
    return ("budget:", f"warm_start: [{folder}]\nbudget:")


def test_what_an_earlier_search_recommended_is_tried_right_after_the_baseline(write_config, tmp_path):
    first = run(write_config(), tmp_path / "first").recommendation
    run(write_config(after(tmp_path / "first")), tmp_path / "second")
    rows = rows_of(tmp_path / "second" / "trials.csv")
    assert len(rows) == 6
    assert float(rows[1]["lr"]) == pytest.approx(first.settings["lr"])
    assert float(rows[1]["beta2"]) == pytest.approx(first.settings["beta2"])


def test_runs_of_the_same_task_teach_and_those_of_another_do_not(write_config, tmp_path):
    run(write_config(), tmp_path / "first")
    trials, proofs = (rows_of(tmp_path / "first" / name) for name in ("trials.csv", "confirmations.csv"))
    same = learn(load_config(write_config(after(tmp_path / "first"))))
    assert len(same.runs) == len(trials) + len(proofs)
    assert {observation.steps for observation in same.observations} >= {60, 150}
    for other in (
        ("jitter: 0.1", "jitter: 0.2"),
        ("full_steps: 150", "full_steps: 300"),
        ("budget:", "objective: {metric: loss_auc}\nbudget:"),
    ):
        lessons = learn(load_config(write_config(after(tmp_path / "first"), other)))
        assert (len(lessons.to_try), lessons.runs) == (1, ())


def test_an_earlier_place_is_the_place_in_the_new_space(write_config, tmp_path):
    run(write_config(), tmp_path / "first")
    wider = ("lr: {low: 1.0e-3", "lr: {low: 1.0e-6")
    narrow = learn(load_config(write_config(after(tmp_path / "first")))).runs
    wide = learn(load_config(write_config(after(tmp_path / "first"), wider))).runs
    assert [settings["lr"] for settings, _ in narrow] == [settings["lr"] for settings, _ in wide]
    pairs = [(a.place, b.place) for (_, a), (_, b) in zip(narrow, wide, strict=True)]
    assert all(b[0] > a[0] for a, b in pairs if a[0] < 1.0)


def test_a_folder_without_its_study_is_a_clear_error_and_claims_nothing(write_config, tmp_path):
    run(write_config(), tmp_path / "first")
    (tmp_path / "first" / "study.journal").unlink()
    with pytest.raises(OutputFolderError, match=r"must hold the study of its search, but it is gone from .*journal"):
        run(write_config(after(tmp_path / "first")), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_folder_of_no_search_and_the_searchs_own_are_refused(write_config, tmp_path):
    with pytest.raises(ConfigError, match=r"warm_start\[0\]: must be the output folder of an earlier search"):
        run(write_config(after(tmp_path / "nothing")), tmp_path / "second")
    run(write_config(), tmp_path / "first")
    with pytest.raises(ConfigError, match=r"warm_start\[0\]: must be the output folder of an earlier search"):
        run(write_config(after(tmp_path / "first")), tmp_path / "first")


def test_going_on_with_a_search_does_not_need_the_folders_that_it_learned_from(write_config, tmp_path):
    recommended = run(write_config(), tmp_path / "first").recommendation
    warm = after(tmp_path / "first")
    run(write_config(warm, ("trials: 6", "trials: 1")), tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    run(write_config(warm), tmp_path / "second", resume=True)
    assert float(rows_of(tmp_path / "second" / "trials.csv")[1]["lr"]) == pytest.approx(recommended.settings["lr"])
    study = read_study(load_config(write_config(warm)), tmp_path / "second" / "study.journal")
    assert sum(name.startswith("lesson:") for name in study.user_attrs) >= 6


@pytest.mark.parametrize("damage", [b"\x00\xff garbage\nmore\n", b'{"op_code": 99}\n{"op_code": 0}\n', b"[1]\n[2]\n"])
def test_a_damaged_journal_is_a_clear_error(write_config, tmp_path, damage):
    run(write_config(("trials: 6", "trials: 1")), tmp_path / "first")
    (tmp_path / "first" / "study.journal").write_bytes(damage)
    with pytest.raises(OutputFolderError, match=r"study\.journal: must be a journal that Optuna wrote"):
        run(write_config(after(tmp_path / "first")), tmp_path / "second")
    with pytest.raises(OutputFolderError, match=r"study\.journal: must be a journal that Optuna wrote"):
        run(write_config(("trials: 6", "trials: 1")), tmp_path / "first", resume=True)
    assert (tmp_path / "first" / "study.journal").read_bytes() == damage


def test_a_journal_that_is_damaged_amid_its_records_is_refused_with_the_line(write_config, tmp_path):
    run(write_config(("trials: 6", "trials: 1")), tmp_path / "first")
    journal = tmp_path / "first" / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"\xff" + lines[2][1:], *lines[3:]]))
    with pytest.raises(OutputFolderError, match=r"study\.journal: must be a journal .*, but line 3 is damaged\."):
        run(write_config(("trials: 6", "trials: 1")), tmp_path / "first", resume=True)


def test_records_of_another_version_are_refused_by_name(write_config, tmp_path):
    run(write_config(("trials: 6", "trials: 1")), tmp_path / "first")
    journal = tmp_path / "first" / "study.journal"
    journal.write_text("".join(line for line in journal.open() if "records_format" not in line))
    with pytest.raises(OutputFolderError, match="must have format 2, but have format 1"):
        run(write_config(after(tmp_path / "first")), tmp_path / "second")
    with pytest.raises(OutputFolderError, match="must have format 2, but have format 1"):
        run(write_config(), tmp_path / "first", resume=True)


def test_reading_an_earlier_search_leaves_every_byte_of_it_as_it_was(write_config, tmp_path):
    run(write_config(), tmp_path / "first")
    before = {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()}
    assert learn(load_config(write_config(after(tmp_path / "first")))).runs
    assert {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()} == before


SOURCE = (
    "from stabletune.trial.workloads.quadratic import build as quadratic\n\n\ndef build(seed, device):\n    return "
)


def test_runs_of_a_workload_that_was_edited_since_do_not_teach(write_config, tmp_path):
    mine = ("workload: quadratic", "workload: mine.py:build"), ("workload_args:", "# workload_args:")
    (tmp_path / "mine.py").write_text(SOURCE + "quadratic(seed, device)\n")
    run(write_config(*mine), tmp_path / "first")
    assert learn(load_config(write_config(*mine, after(tmp_path / "first")))).runs
    (tmp_path / "mine.py").write_text(SOURCE + "quadratic(seed, device, curvatures=(9.0,))\n")
    lessons = learn(load_config(write_config(*mine, after(tmp_path / "first"))))
    assert (len(lessons.to_try), lessons.runs) == (1, ())


def test_a_folder_that_is_named_twice_counts_once(write_config, tmp_path):
    first = tmp_path / "first"
    run(write_config(), first)
    once = learn(load_config(write_config(after(first))))
    twice = learn(load_config(write_config(("budget:", f"warm_start: [{first}, {first}]\nbudget:"))))
    assert (len(twice.to_try), len(twice.runs)) == (1, len(once.runs))
