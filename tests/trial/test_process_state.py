import locale
import logging
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stabletune.trial.process_state import kept_process
from stabletune.trial.worker import run_trial
from tests.trial.specs import spec_of_file

TRAINING = """
import torch
from stabletune import Training

def build(seed, device, *, kind="none"):
    DOES
    loss_fn = lambda m, b: (m(b[0]) - b[1]).square().mean()
    return Training(model=torch.nn.Linear(4, 1), loss_fn=loss_fn, batches=[(torch.randn(8, 4), torch.randn(8, 1))])
"""
CHANGES = {
    "a function of torch": "old = torch.nn.functional.linear; torch.nn.functional.linear = lambda *a: 1.5 * old(*a)",
    "a method": "old = torch.nn.Linear.forward; torch.nn.Linear.forward = lambda self, x: 1.5 * old(self, x)",
    "a method that was inherited": "torch.optim.AdamW.step = lambda self, closure=None: None",
    "a static method": "torch.nn.Linear.forward = staticmethod(lambda x: x.sum(-1, keepdim=True))",
    "a function of Python": "import math; math.isfinite = lambda value: False",
    "the clock": "import time; time.monotonic = lambda: 0.0",
    "the seeding": "torch.manual_seed = lambda seed: None",
    "a hook of every module": "torch.nn.modules.module.register_module_forward_hook(lambda m, i, o: 1.5 * o)",
    "a hook of every optimizer": "__import__('torch.optim.optimizer'); "
    "torch.optim.Optimizer.register_optimizer_step_pre_hook = None; "
    "__import__('sys').modules['torch.optim.optimizer'].register_optimizer_step_pre_hook(lambda o, a, k: 1 / 0)",
    "inference mode": "torch.inference_mode().__enter__()",
    "autocast": "torch.autocast('cpu', dtype=torch.bfloat16).__enter__()",
    "no oneDNN": "torch.backends.mkldnn.enabled = False",
    "a start method": "__import__('multiprocessing').set_start_method('spawn')",
    "a process group": "torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, "
    "world_size=1)",
    "a loaded module taken away": "import sys; sys.modules['json'] = None; sys.modules.pop('copy')",
    "the import system": "import sys; sys.meta_path.clear()",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_trial_changes_neither_reaches_the_next_nor_keeps_it_from_doing_the_same(tmp_path, change):
    folders = [tmp_path / name for name in ("before", "changing", "after")]
    for folder in folders:
        folder.mkdir()
    plain, changing = TRAINING.replace("DOES", "pass"), TRAINING.replace("DOES", CHANGES[change])
    before, *changed, after = (
        run_trial(spec_of_file(folder, source, steps=20))
        for folder, source in zip((*folders[:2], *folders[1:]), (plain, changing, changing, plain), strict=True)
    )
    assert changed[0].reason == changed[1].reason
    assert np.array_equal(changed[0].losses, changed[1].losses)
    assert (before.status, after.status, after.reason) == ("completed", "completed", before.reason)
    assert np.array_equal(before.losses, after.losses)


def the_process():
    return {
        "umask": (mask := os.umask(0), os.umask(mask))[0],
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "locale": locale.setlocale(locale.LC_ALL),
        "alarm": signal.getsignal(signal.SIGALRM),
        "interrupt": signal.getsignal(signal.SIGINT),
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "handlers": list(logging.root.handlers),
        "hook": sys.excepthook,
        "arguments": (id(sys.argv), list(sys.argv)),
        "path": (id(sys.path), list(sys.path)),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "output": os.fstat(1).st_ino,
        "error": os.fstat(2).st_ino,
    }


def test_signals_limits_and_descriptors_are_as_before():
    before, n_files = the_process(), len(os.listdir("/proc/self/fd"))
    with kept_process():
        os.umask(0o777)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, before["limits"][1]))
        locale.setlocale(locale.LC_ALL, "C")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 3600.0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        logging.root.addHandler(logging.NullHandler())
        sys.excepthook = print
        sys.argv.append("--more")
        sys.path = ["elsewhere", *sys.path]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(2)
    assert the_process() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert len(os.listdir("/proc/self/fd")) == n_files + 1  # what os.open gave


HUNG_UP = """
import os, pty
from stabletune.trial.process_state import kept_process

terminal, ours = pty.openpty()
os.dup2(ours, 1)
os.close(ours)
with kept_process():
    os.close(terminal)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.write(1, b"written")
"""


def test_a_terminal_that_was_closed_meanwhile_is_not_put_back():
    subprocess.run([sys.executable, "-c", HUNG_UP], check=True)


LOWERED = """
import resource
from stabletune.trial.process_state import kept_process

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 800))
with kept_process():
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_limit_is_put_back_though_its_hard_one_was_lowered_which_only_root_may_raise():
    assert subprocess.check_output([sys.executable, "-c", LOWERED]) in (b"200 400\n", b"200 800\n")


def test_what_is_not_of_the_users_files_stays(tmp_path):
    kept = math.isqrt, time.sleep
    try:
        source = TRAINING.replace("DOES", "import math, time; math.isqrt = time.sleep")
        assert run_trial(spec_of_file(tmp_path, source, steps=5)).status == "completed"
        assert math.isqrt is time.sleep
    finally:
        math.isqrt, time.sleep = kept


def test_grad_mode_is_as_before_too():
    with kept_process():
        torch.set_grad_enabled(False)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("import sched; sched.namedtuple = lambda *a: None", "the workload replaced what is in sched, which it loaded"),
        ("import sched", ""),
        ("import os; os.chdir('/')", ""),
        ("import os; os.rmdir(os.getcwd())", "cannot be put back"),
    ],
    ids=["a patch in a module that it loads", "a module that it loads", "another folder", "its folder is gone"],
)
def test_what_cannot_be_put_back_spoils_the_process_and_keeps_the_trial(tmp_path, does, why):
    source, working_folder = TRAINING.replace("DOES", does), tmp_path / "here"
    working_folder.mkdir()
    code = f"""
import pathlib, sys
from stabletune.trial.process_state import is_spoiled
from stabletune.trial.worker import run_trial
from tests.trial.specs import spec_of_file

sys.modules.pop("sched", None)
result = run_trial(spec_of_file(pathlib.Path({str(tmp_path)!r}), {source!r}, steps=20))
print(result.status, is_spoiled())
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=working_folder, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["completed", str(why != "")], done.stderr
    assert why in done.stderr
