"""Chooses TCP ports on the loopback interface that stay free for a process to come back to."""

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST = 15_000
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """Returns a free port below the kernel's ephemeral range and not in `taken`.

    A port inside that range can be lost while its server restarts: a client that keeps reconnecting
    to it is sooner or later given that very port as its own and connects to itself.
    """
    highest = _ephemeral_start() - 1
    for _ in range(1000):
        port = random.randint(_LOWEST, highest)
        if port not in taken and is_free(port):
            return port
    raise RuntimeError(f"no free port between {_LOWEST} and {highest}")


def _ephemeral_start() -> int:
    try:
        start = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        start = 32_768
    return max(start, _LOWEST + 1000)
