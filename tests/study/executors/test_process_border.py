"""What a trial that cannot run in a process that others used does to it; the retry itself is Ray's."""

import subprocess
import sys
import textwrap

import pytest

WORKLOADS = {
    "raises at build": "raise ValueError('registered already')",
    "raises at its first batch": "return Training(model=torch.nn.Linear(1, 1), loss_fn=never, batches=[0])",
    "raises later": "return Training(model=torch.nn.Linear(1, 1), loss_fn=later, batches=[0])",
}
CODE = """
import pathlib, sys, tempfile
from stabletune.study.executors.process_border import run_watched
from tests.trial.specs import spec_of_file

SOURCE = '''
import torch
from stabletune import Training
n = 0

def never(model, batch):
    return 1 / 0

def later(model, batch):
    global n
    n += 1
    return model.weight.square().sum() + 1.0 / (n < 9)

def build(seed, device):
    BODY
'''
spec = spec_of_file(pathlib.Path(tempfile.mkdtemp()), SOURCE)
print(run_watched(spec, lambda progress: True, print, is_in_doubt=IS_IN_DOUBT).reason, flush=True)
"""


def run(body, is_in_doubt):
    code = textwrap.dedent(CODE).replace("BODY", body).replace("IS_IN_DOUBT", str(is_in_doubt))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("kind", ["raises at build", "raises at its first batch"])
def test_a_failure_before_the_first_step_in_a_used_process_ends_it_without_a_word(kind):
    ended = run(WORKLOADS[kind], is_in_doubt=True)
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr


@pytest.mark.parametrize(("kind", "is_in_doubt"), [("raises at build", False), ("raises later", True)])
def test_a_failure_in_a_new_process_and_a_later_one_are_believed(kind, is_in_doubt):
    ended = run(WORKLOADS[kind], is_in_doubt)
    assert ended.returncode == 0, ended.stderr
    assert "the workload raised" in ended.stdout
