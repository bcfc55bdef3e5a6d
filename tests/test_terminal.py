import io
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from stabletune.records import Progress, TrialResult
from stabletune.terminal import PlainLines, SignalLines, watching
from tests.trial.specs import quadratic_spec


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (12.345, "sharpness 12.3")])
def test_raw_sharpness_is_shown_where_it_was_read(value, shown):
    text = io.StringIO()
    SignalLines(Console(file=text, width=200), seconds=0.0).on_progress(
        Progress(
            number=0, purpose="search", seed=0, step=1, steps=9, loss=0.5, sharpness_ratio=0.75, v_hat_staleness=2.0,
            sharpness=value,
        )
    )  # fmt: skip
    assert text.getvalue().rstrip().endswith(f"v_hat_staleness 2{shown and ', '}{shown}")


def test_a_line_has_every_setting_that_is_not_the_default():
    text = io.StringIO()
    spec = quadratic_spec(params={"lr": 0.01, "amsgrad": True, "max_grad_norm": 0.3})
    PlainLines(Console(file=text, width=300)).on_result(
        TrialResult(spec=spec, status="completed", reason="done", losses=np.ones(20))
    )
    assert "lr 0.01, beta2 0.999" in text.getvalue()
    assert "amsgrad True" in text.getvalue() and "max_grad_norm 0.3" in text.getvalue()
    assert "eps" not in text.getvalue()


def test_a_program_that_handles_sigterm_does_so_after_an_interruption_too():
    def own(*_): ...

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGTERM, own)
        with pytest.raises(KeyboardInterrupt), watching(quiet=True):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


WATCHES = """
import os, sys, time
from stabletune.terminal import watching

os.open(os.ttyname(2), os.O_RDWR)  # the first that the leader of a session opens is its own
try:
    with watching(quiet=False):
        time.sleep(60.0)
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
"""


def test_a_terminal_that_is_closed_interrupts_and_what_is_said_then_raises_nothing():
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-c", WATCHES]
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=its_end, stderr=its_end, env=environment, start_new_session=True) as driver:
        os.close(its_end)
        shown = b""
        while b"starting workers" not in shown:
            shown += os.read(terminal, 4096)
        os.close(terminal)
        assert driver.wait(timeout=60) == 130
