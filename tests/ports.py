"""Ports for the servers of tests, which run side by side with others."""

import os
import socket

# Below them a Ray client's servers have theirs, above them the system gives its own to any connection.
FIRST, LAST = 25000, 32767


def free_ports(n):
    """Ports that nobody has now and that nobody is given unasked; another process looks from another one on."""
    begin = os.getpid() * 10 % (LAST - FIRST)
    found = []
    for port in (FIRST + (begin + k) % (LAST - FIRST) for k in range(LAST - FIRST)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise AssertionError("no free ports")
