from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stabletune.document import Document, apply_overrides, dotted, read_document, shown
from stabletune.errors import ConfigError, without_password


def written(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read_document(written(folder, text))
    return caught.value.problems


def test_every_key_and_list_item_knows_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "# comment\na: 1\nb:\n  c:\n    - x\n    - {d: 2}\n")
    document = read_document(path)
    assert document.where(("a",)) == f"{path}:2"
    assert document.where(("b", "c", 1, "d")) == f"{path}:6"


def test_a_key_that_was_not_written_is_placed_at_the_mapping_around_it(tmp_path: Path) -> None:
    path = written(tmp_path, "a: 1\nb: {c: 2}\n")
    document = read_document(path)
    assert document.where(("b", "missing", "deeper")) == f"{path}:2"
    assert document.where(("missing",)) == str(path)


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.e-5", "1.0e-5", "+1e-5", "0.1e-4", ".1e-4", "10e-6"])
def test_scientific_notation_is_a_number_however_it_is_written(tmp_path: Path, text: str) -> None:
    assert read_document(written(tmp_path, f"x: {text}\ny: [{text}]\n")).data == {"x": 1e-5, "y": [1e-5]}


@pytest.mark.parametrize("text", ["'1e-5'", "e5", "1e", "1e5x", "a1e5"])
def test_text_that_looks_a_little_like_a_number_stays_text(tmp_path: Path, text: str) -> None:
    assert isinstance(read_document(written(tmp_path, f"x: {text}\n")).data["x"], str)


def test_reading_leaves_the_yaml_library_as_it_was(tmp_path: Path) -> None:
    read_document(written(tmp_path, "x: 1e-5\n"))
    assert yaml.safe_load("x: 1e-5") == {"x": "1e-5"}


def test_a_key_written_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "a:\n  lr: 1\n  eps: 2\n  lr: 3\n")
    assert problem.endswith("some.yaml:4: a.lr: must be written once, but got it on line 2 too. Remove one of them.")


def test_a_key_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "a: 1\noff: 2\n")
    assert problem.endswith("some.yaml:2: a key must be text, but got 'off'. Put it in quotes.")


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "a: 1\nb: [1, 2\nc: 3\n")
    assert "some.yaml:3: must be valid YAML, but got: " in problem


def test_characters_yaml_does_not_allow_are_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "a: \x00\n")
    assert "must be valid YAML" in problem


def test_several_documents_in_one_file_are_refused(tmp_path: Path) -> None:
    assert "some.yaml:2: must hold one document, but got a second one." in problems_of(tmp_path, "a: 1\n---\nb: 2\n")[0]


def test_python_objects_are_not_built(tmp_path: Path) -> None:
    assert "a: must be written without a tag" in problems_of(tmp_path, "a: !!python/object/apply:os.getcwd []\n")[0]


@pytest.mark.parametrize(
    ("text", "got"), [("", "an empty file"), ("# only words\n", "an empty file"), ("- 1\n", "[1]")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, got: str) -> None:
    assert f"must be a mapping of keys to values, but got {got}." in problems_of(tmp_path, text)[0]


def test_an_alias_to_itself_is_refused(tmp_path: Path) -> None:
    assert "a[0]: must not contain itself" in problems_of(tmp_path, "a: &x [*x]\n")[0]


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    document = read_document(written(tmp_path, "a: &x {c: 1}\nb: {<<: *x, d: 2}\n"))
    assert document.data["b"] == {"c": 1, "d": 2}


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match="must be a readable text file, but got"):
            read_document(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match="bytes that are not UTF-8"):
        read_document(tmp_path / "some.yaml")


def test_overrides_set_nested_keys_and_read_values_as_yaml() -> None:
    document = Document("c.yaml", {"a": {"b": 1}, "none": None}, {})
    assert apply_overrides(document, ["a.b=1e-3", "new.key=[1, null]", "none.x=true", "empty="]) == []
    assert document.data == {"a": {"b": 1e-3}, "none": {"x": True}, "new": {"key": [1, None]}, "empty": None}


def test_an_overridden_key_is_placed_at_the_override() -> None:
    document = Document("c.yaml", {"a": {"b": 1}}, {("a",): "c.yaml:1", ("a", "b"): "c.yaml:2"})
    apply_overrides(document, ["a={b: 2}"])
    assert document.where(("a", "b")) == "--set a={b: 2}"


def test_workload_args_inside_a_mapping_is_one_key_with_its_name() -> None:
    document = Document("c.yaml", {}, {})
    apply_overrides(document, ["workload_args.width=3", "baseline.workload_args.width=4"])
    assert document.data == {"workload_args": {"width": 3}, "baseline": {"workload_args.width": 4}}


@pytest.mark.parametrize("override", ["a", "=1", "", "a=[1", "a.b.c=1"])
def test_an_override_that_cannot_be_applied_is_a_problem(override: str) -> None:
    document = Document("c.yaml", {"a": {"b": 1}}, {})
    (problem,) = apply_overrides(document, [override])
    assert problem.startswith(f"--set {override}: ")
    assert document.data == {"a": {"b": 1}}


def test_keys_and_values_are_shown_as_the_reader_wrote_them() -> None:
    assert dotted(("a", "choices", 2)) == "a.choices[2]"
    assert [shown(value) for value in (None, True, "x", 1.5)] == ["null", "true", "'x'", "1.5"]
    assert shown({"low": 0, "x": [None]}) == "{low: 0, x: [null]}"
    assert len(shown("x" * 1000)) == 80


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("postgresql://me:open-sesame@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg://me:a%40b:c@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me:two@signs@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:alone@/db", "postgresql://:***@/db"),
        ("mysql://me:pw@host:1/db?name=me@corp&a=b", "mysql://me:***@host:1/db?name=me@corp&a=b"),
        ("mysql://me:two@signs@host/db?name=me@corp", "mysql://me:***@host/db?name=me@corp"),
        ("mysql://me:${PASSWORD}@host:1/db?name=me@corp", "mysql://me:${PASSWORD}@host:1/db?name=me@corp"),
        ("mysql://me@host:1/db?name=me@corp", "mysql://me@host:1/db?name=me@corp"),
        ("mysql://me:pw@host/db?name=me@corp&password=p@w", "mysql://me:***@host/db?name=me@corp&password=***"),
        ("mysql://me:a/slash@host/db", "mysql://me:***@host/db"),
        ("mysql://me:an@and/slash@host/db", "mysql://me:***@host/db"),
        ("mysql://me:an@and?mark@host/db", "mysql://me:***@host/db"),
        ("mysql://me:an@and/a?mark=it@host/db", "mysql://me:***@host/db"),
        ("mysql://me:an@and?mark=it@host:1", "mysql://me:***@host:1"),
        ("mysql://me:an@and#hash@host/db", "mysql://me:***@host/db"),
        ("mysql://me@an:open-sesame@host/db", "mysql://me@an:***@host/db"),
        ("mysql://host/db?user=me&password=open-sesame&ssl=1", "mysql://host/db?user=me&password=***&ssl=1"),
        ("mysql:me:open-sesame@host", "mysql:***@host"),
        ("storage=mysql://me:${PART}rest@host/db", "storage=mysql://me:***@host/db"),
        ("mysql://me:${PASSWORD}@host/db", "mysql://me:${PASSWORD}@host/db"),
        ("mysql://me@host:3306/db", "mysql://me@host:3306/db"),
        ("sqlite:////folder/study.db", "sqlite:////folder/study.db"),
        ("${STORAGE}", "${STORAGE}"),
        ("workload.py:build", "workload.py:build"),
    ],
)
def test_a_text_is_shown_without_the_passwords_of_its_urls(text: str, without: str) -> None:
    assert without_password(text) == without
    assert shown({"deep": [text]}) == shown({"deep": [without]})


def test_a_password_is_hidden_before_a_value_is_cut_short() -> None:
    assert "open" not in shown(f"postgresql://me:{'open-sesame' * 20}@host/db")


def test_an_unknown_key_comes_with_its_nearest_neighbour_or_all_known_ones() -> None:
    document = Document("c.yaml", {}, {("budget", "trails"): "c.yaml:7"})
    assert document.unknown(("budget", "trails"), ["trials", "seeds"]) == (
        "c.yaml:7: unknown key `budget.trails`. Did you mean `budget.trials`?"
    )
    assert document.unknown(("zzz",), ["trials", "seeds"]) == "c.yaml: unknown key `zzz`. Known here: trials, seeds."
