"""Searches that die at a chosen access to their folder, each from a fork of one process: the imports are paid once."""

from __future__ import annotations

import os
import signal
import sys
import traceback

from stabletune import search

WRITES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.truncate", "os.chmod"}


def die_at(n, folder):
    """Have this process killed right before its ``n``-th access to the folder."""
    left = n

    def look(event, arguments):
        nonlocal left
        if event in WRITES and str(arguments[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def run(config, folder, *, log, dies_at=None, resume=False):
    """Search in a child of this process; how it ended, as ``os.waitstatus_to_exitcode`` says it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(log, "w") as written:
                os.dup2(written.fileno(), 2)
            if dies_at is not None:
                die_at(dies_at, folder)
            search(config, output=folder, executor="inline", resume=resume)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
