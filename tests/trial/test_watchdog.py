import subprocess
import sys
import textwrap

from stabletune.trial.watchdog import descendants, memory_alone


def in_another_process(code):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)


HUNGRY = "kept = bytearray(300 * 2**20); kept[::4096] = kept[::4096]; print(flush=True); input()"
WATCHED = f"""
import subprocess, sys, time
from stabletune.trial.watchdog import Watchdog
from tests.trial.specs import quadratic_spec

child = subprocess.Popen([sys.executable, "-c", {HUNGRY!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
with Watchdog(quadratic_spec(memory_gib=0.25), lambda words: print(child.pid, words, flush=True)):
    time.sleep(3600)
"""


def test_the_memory_of_processes_that_it_started_counts_and_they_end_with_it():
    ended = in_another_process(WATCHED)
    child, words = ended.stdout.split(maxsplit=1)
    assert ended.returncode == 1
    assert "GiB of memory are more than resources.memory_gib_per_trial, 0.25" in words
    assert memory_alone(int(child)) == 0.0
    assert not descendants(child)


UNHEARD = """
import time
from stabletune.trial.watchdog import Watchdog
from tests.trial.specs import quadratic_spec

with Watchdog(quadratic_spec(memory_gib=0.01), lambda words: 1 / 0):
    time.sleep(60.0)
print("it lives", flush=True)
"""


def test_a_process_ends_whose_last_words_nobody_takes():
    ended = in_another_process(UNHEARD)
    assert (ended.returncode, ended.stdout) == (1, "")


IN_DOUBT = """
import numpy as np, time
from stabletune.trial.watchdog import Watchdog
from tests.trial.specs import quadratic_spec

left_over = np.ones(2**26)
with Watchdog(quadratic_spec(memory_gib=0.25), print, is_in_doubt=True):
    time.sleep(3600)
"""


def test_memory_that_earlier_trials_may_have_left_ends_the_process_without_words():
    ended = in_another_process(IN_DOUBT)
    assert (ended.returncode, ended.stdout) == (1, "")


WITHOUT_FILES = """
import os, time
from stabletune.trial.watchdog import Watchdog, has_room
from tests.trial.specs import quadratic_spec

assert has_room()
with Watchdog(quadratic_spec(seconds=1.0, memory_gib=8.0), lambda words: print(words, flush=True)):
    try:
        while True:
            os.open("/dev/null", os.O_RDONLY)
    except OSError:
        assert not has_room()
    time.sleep(3600)
"""


def test_a_process_that_can_open_no_file_any_more_is_watched_on():
    ended = in_another_process(WITHOUT_FILES)
    assert ended.returncode == 1
    assert "budget.trial_minutes" in ended.stdout, ended.stderr
