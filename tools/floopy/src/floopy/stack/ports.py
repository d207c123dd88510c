"""Gives every process of the local system a port of its own and keeps it over restarts."""

import asyncio

from floopy.backends.ports import free_port, is_free

RELEASE_TIMEOUT = 3.0
"""Seconds the processes of a start that was killed may take to let go of their ports."""


class PortTakenError(Exception):
    """A port that was asked for by number is in use."""


class PortBook:
    """Ports by process name; `kept` are those of the last start."""

    def __init__(self, kept: dict[str, int]) -> None:
        self.ports = kept

    async def wait_released(self) -> None:
        """Waits for the ports of the last start, for a while: who else has one may keep it."""
        deadline = asyncio.get_running_loop().time() + RELEASE_TIMEOUT
        while asyncio.get_running_loop().time() < deadline:
            if all(is_free(port) for port in self.ports.values()):
                return
            await asyncio.sleep(0.05)

    def exactly(self, name: str, port: int) -> int:
        """Raises PortTakenError where `port` is in use."""
        if not is_free(port):
            raise PortTakenError(f"port {port} is in use; choose another, or --port 0 for any free one")
        self.ports[name] = port
        return port

    def again(self, name: str, preferred: int | None = None) -> int:
        """Returns the port of the last start, else the preferred one, else any; the first that is free."""
        others = frozenset(port for owner, port in self.ports.items() if owner != name)
        for port in (self.ports.get(name), preferred):
            if port and port not in others and is_free(port):
                break
        else:
            port = free_port(others)
        self.ports[name] = port
        return port
