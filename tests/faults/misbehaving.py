"""Workloads that misbehave, each in its own way, as a user's file would: written against the README alone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings

import numpy as np
import torch

import stabletune


class Batches:
    """A stream that does something at one of its batches."""

    def __init__(self, at, action):
        self.at, self.action = at, action

    def __iter__(self):
        for n in range(10_000):
            if n == self.at:
                self.action()
            yield torch.randn(16, 4), torch.randn(16, 1)


def raises():
    raise RuntimeError("the data are gone")


def allocates():
    kept = []
    while True:
        kept.append(np.ones(2**22))


def holds_the_lock():
    # PyDLL keeps the interpreter's lock: no other thread runs meanwhile
    ctypes.PyDLL(None).sleep(3600)


def forks():
    if os.fork() == 0:
        time.sleep(0.1)  # and comes back into the training, as a careless child does


def prints():
    for _ in range(200):
        print("x" * 50_000)


def changes_torch():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(7)


def changes_python():
    os.chdir("/")
    os.environ.clear()
    sys.path.clear()
    np.seterr(all="raise")
    warnings.simplefilter("error")
    sys.setrecursionlimit(60)
    logging.disable(logging.CRITICAL)
    gc.disable()
    random.seed(0)
    sys.stdout = None


def closes_streams():
    sys.stdout.close()
    sys.stderr.close()


def leaves_a_thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()


def ignores_signals():
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


ACTIONS = {
    "raises at a step": raises,
    "leaves by sys.exit": sys.exit,
    "leaves by os._exit": lambda: os._exit(0),
    "stops itself": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kills itself": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "dies of a segmentation fault": lambda: ctypes.string_at(0),
    "sleeps for ever": lambda: time.sleep(3600),
    "hangs with the lock held": holds_the_lock,
    "allocates without end": allocates,
    "forks": forks,
    "prints megabytes": prints,
    "changes torch": changes_torch,
    "changes Python": changes_python,
    "closes its streams": closes_streams,
    "leaves a thread": leaves_a_thread,
    "ignores signals": ignores_signals,
    "raises KeyboardInterrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "raises GeneratorExit": lambda: (_ for _ in ()).throw(GeneratorExit()),
    "runs out of recursion": lambda: (lambda f: f(f))(lambda f: f(f)),
}


def spins():
    while True:
        pass


def build(seed, device, *, kind="none"):
    if kind == "raises at build":
        raise ValueError("no such data set")
    if kind == "spins at build":
        spins()
    if kind == "gives back nothing":
        return None
    model = torch.nn.Linear(4, 1)
    losses = {
        "nan": lambda m, b: m(b[0]).sum() * float("nan"),
        "inf": lambda m, b: m(b[0]).square().mean() + float("inf"),
        "a vector": lambda m, b: m(b[0]),
        "a number": lambda m, b: float(m(b[0]).sum()),
        "no gradient": lambda m, b: m(b[0]).square().mean().detach() + 1.0,
        "another at each call": lambda m, b: (m(b[0]) - b[1]).square().mean() * (1.0 + random.SystemRandom().random()),
    }
    plain = lambda m, b: (m(b[0]) - b[1]).square().mean()  # noqa: E731
    return stabletune.Training(
        model=model,
        loss_fn=losses.get(kind, plain),
        batches=[] if kind == "no batches" else Batches(20, ACTIONS.get(kind, lambda: None)),
    )
