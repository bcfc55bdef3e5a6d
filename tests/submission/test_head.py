"""A real head asked on ways that lose answers: no job starts twice, and what is followed comes to an end."""

import secrets

import pytest

from stabletune.errors import JobError
from stabletune.submission.head import Head

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def job_id():
    return f"stabletune-tested-{secrets.token_hex(4)}"


def follow(head, job_id):
    shown = []
    return head.follow(job_id, shown.append), "".join(shown)


@pytest.mark.parametrize("fault", ["requests_lost", "answers_lost", "delayed"])
def test_a_job_whose_start_is_not_answered_starts_once(head, losing, job_id, fault):
    setattr(losing, fault, 1)
    Head(f"http://127.0.0.1:{losing.server_port}").start(job_id, "echo ran")
    job, shown = follow(Head(head), job_id)
    assert job.status == "SUCCEEDED"
    assert shown.splitlines().count("ran") == 1


def test_a_start_that_is_never_answered_is_told(losing, job_id):
    losing.requests_lost = 2
    with pytest.raises(JobError, match="the head of the cluster must answer as asked, but gave"):
        Head(f"http://127.0.0.1:{losing.server_port}").start(job_id, "true")


def test_a_log_that_cannot_be_read_while_the_job_runs_is_told_and_shown_at_its_end(losing, job_id, tmp_path):
    """On a way without web sockets."""
    told, shown = tmp_path / "told", ""

    def show(text):
        nonlocal shown
        shown += text
        if "its log cannot be read while it runs; it is followed all the same." in shown:
            told.touch()

    asked = Head(f"http://127.0.0.1:{losing.server_port}")
    asked.start(job_id, f"timeout 120 sh -c 'until [ -e {told} ]; do sleep 0.1; done' && echo ran")
    assert asked.follow(job_id, show).status == "SUCCEEDED"
    assert shown.count("it is followed all the same.") == 1
    assert shown.splitlines().count("ran") == 1


def test_what_a_job_writes_commands_no_terminal(head, job_id):
    asked = Head(head)
    asked.start(job_id, r"printf 'a\033]0;mine\007\tb\n'; exit 5")
    job, shown = follow(asked, job_id)
    assert (job.status, job.exit_code) == ("FAILED", 5)
    assert "a\\x1b]0;mine\\x07\tb\n" in shown
    assert "\x1b" not in shown + job.message


def test_a_job_that_the_head_knows_no_more_is_not_followed(head, job_id):
    assert follow(Head(head), job_id) == (None, "")


def test_one_who_cannot_show_a_log_is_told_so(head, job_id):
    """A broken pipe of one's own is none of the head's."""

    def show(text):
        raise BrokenPipeError

    asked = Head(head)
    asked.start(job_id, "true")
    with pytest.raises(BrokenPipeError):
        asked.follow(job_id, show)
