"""What is sent to a cluster: the user's code, and neither its environments nor its results."""

import pytest

from stabletune.errors import ResourceError
from stabletune.study.executors.packing import pack


def write(folder, *names, size=10):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_code_and_small_data_are_sent_and_environments_caches_and_results_are_not(tmp_path):
    kept = {"workload.py", "data/train.csv", "package/model.py"}
    write(tmp_path / "mine", *kept)
    write(
        tmp_path / "mine",
        ".git/objects/1",
        ".venv/lib/x.py",
        "venv/x.py",
        "__pycache__/w.pyc",
        "runs/a/trials.csv",
        "package/weights.pt",
        "big/model.safetensors",
        ".env",
    )
    pack(tmp_path / "mine", tmp_path / "sent")
    assert names_in(tmp_path / "sent") == kept


def test_a_rayignore_leaves_out_more(tmp_path):
    write(tmp_path / "mine", "workload.py", "data/train.bin", "notes.txt", "deep/notes.txt")
    (tmp_path / "mine" / ".rayignore").write_text("# large\ndata/\n*.txt\n\n")
    pack(tmp_path / "mine", tmp_path / "sent")
    assert names_in(tmp_path / "sent") == {"workload.py"}


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(tmp_path):
    write(tmp_path / "mine", "workload.py")
    for name, mib in (("a.bin", 70), ("b.bin", 40)):
        with (tmp_path / "mine" / name).open("wb") as file:
            file.truncate(mib * 2**20)
    with pytest.raises(ResourceError, match=r"at most 100 MiB .* has 110: a\.bin \(70 MiB\), b\.bin \(40 MiB\)"):
        pack(tmp_path / "mine", tmp_path / "sent")
    assert not (tmp_path / "sent").exists()


def test_a_link_that_leads_in_a_circle_ends(tmp_path):
    write(tmp_path / "mine", "workload.py")
    (tmp_path / "mine" / "again").symlink_to(tmp_path / "mine")
    pack(tmp_path / "mine", tmp_path / "sent")
    assert names_in(tmp_path / "sent") == {"workload.py"}
