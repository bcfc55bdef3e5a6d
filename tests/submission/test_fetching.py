"""What comes back moves into the output folder, and one who was cut off meanwhile fetches it again."""

import pytest
from typer.testing import CliRunner

from stabletune.cli import app
from stabletune.config import load_config
from stabletune.errors import OutputFolderError
from stabletune.results.store import RunFolder
from stabletune.submission.archive import pack_run
from stabletune.submission.fetching import move_in
from stabletune.submission.note import Note, read_note


@pytest.fixture
def arrived(write_config, tmp_path):
    """The archive of a search, the folder that waits for it with its note, and the config."""
    config = write_config(("trials: 6", "trials: 3"))
    done = CliRunner().invoke(app, ["search", str(config), "--output", str(tmp_path / "far"), "--executor", "inline"])
    assert done.exit_code == 0
    (tmp_path / "scratch").mkdir()
    archive = tmp_path / "scratch" / "run.tar.gz"
    pack_run((tmp_path / "far").iterdir(), archive)
    folder = RunFolder(tmp_path / "out")
    folder.path.mkdir()
    Note("stabletune-1", "http://head:8265", goes_on=False).write(folder.path)
    return archive, folder, load_config(config, output=folder.path).resolved()


def content(folder):
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(name): (folder / name).read_bytes() for name in names if name.name != "submission.json"}


def test_a_move_that_is_cut_off_before_the_end_is_done_again(arrived, tmp_path):
    """A folder of the user's, where a file must go, cuts the first one off half-way."""
    archive, folder, config = arrived
    in_the_way = folder.path / "trials.csv.lock"
    in_the_way.mkdir()
    (tmp_path / "far" / in_the_way.name).touch()
    (in_the_way / "mine").touch()
    pack_run((tmp_path / "far").iterdir(), archive)
    with pytest.raises(IsADirectoryError):
        move_in(archive, folder, config, read_note(folder.path))
    assert (folder.path / "trials").is_dir()
    assert not folder.exists()
    (in_the_way / "mine").unlink()
    in_the_way.rmdir()
    move_in(archive, folder, config, read_note(folder.path))
    found, expected = content(folder.path), content(tmp_path / "far")
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} == {"config.yaml", "report.html"}


def test_a_move_that_is_cut_off_at_its_very_end_is_done_again(arrived):
    """All is there but the report of this machine, and the note was not forgotten."""
    archive, folder, config = arrived
    move_in(archive, folder, config, read_note(folder.path))
    report = folder.report_path.read_bytes()
    folder.report_path.write_text("of the cluster")
    move_in(archive, folder, config, read_note(folder.path))
    assert folder.report_path.read_bytes() == report


def test_a_search_that_began_in_the_folder_meanwhile_is_not_replaced(arrived):
    archive, folder, config = arrived
    folder.create(config)
    before = content(folder.path)
    with pytest.raises(OutputFolderError, match=r"one began in .* since job stabletune-1 was submitted"):
        move_in(archive, folder, config, read_note(folder.path))
    assert content(folder.path) == before
