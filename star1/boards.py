"""What the launchers of a job over several machines tell each other: that they live, and who failed first.

The first one has the board, a server at the port where torchrun's processes meet as well: in one process both are the same.
"""

import datetime
import functools
import os
import socket
import threading
import time
from collections.abc import Callable

from star1.nodes import LaunchError, Node

# How long a launcher waits for another one to come, how often they look, and how long one may be silent [s].
PATIENCE_S, LOOK_S, SILENT_S = 600.0, 1.0, 90.0
FAREWELL_S = 20.0  # how long the first launcher waits for the others to hear how it ended


class Board:
    """The board, from one launcher.

    Args:
        stage: whose name stands in messages.
        node: this machine.
        lost: called once, from a thread, when another launcher failed or is gone.

    Attributes:
        trouble: what ended another one; empty as long as nothing did.

    Raises:
        LaunchError: not all launchers came, or the port is taken.
    """

    def __init__(self, stage: str, node: Node, lost: Callable[[], None]) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        self.stage, self.node, self.trouble, self._lost = stage, node, "", lost
        self._until, patience = time.monotonic() + PATIENCE_S, datetime.timedelta(seconds=PATIENCE_S)
        if node.number:
            self._wait(self._answers, f"{node.address}:{node.port}, the first machine's launcher,")
        try:
            place = (node.address, node.port, None, node.number == 0, patience)
            self.store = TCPStore(*place, wait_for_workers=False, multi_tenant=True)
        except RuntimeError as error:
            hint = "name a free port of the first machine by MASTER_PORT"
            found = f"no board at port {node.port} ({str(error).splitlines()[0]})"
            raise LaunchError(f"{stage}: {node.name}", found, "a free port", hint) from None
        self._meet()
        self._beats, self._seen = 0, dict[int, tuple[str, float]]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.node.address, self.node.port), timeout=5).close()
        except OSError:
            return False
        return True

    def _wait(self, there: Callable[[], bool], what: str) -> None:
        """Look until it is there; not within torch, which hears no signal meanwhile."""
        while not there():
            if time.monotonic() > self._until:
                hint = f"is one started on each of the {self.node.count} machines, and may they connect to each other?"
                found = f"{what} is not there after {PATIENCE_S:g} s"
                raise LaunchError(f"{self.stage}: {self.node.name}", found, "a launcher on each machine", hint)
            time.sleep(0.1)

    def _meet(self) -> None:
        """Wait for all, and take the network interface that leads to them: a host's own name often leads nowhere else."""
        if self.node.number:
            self._set(f"address-{self.node.number}", own_address(self.node.address))
        for number in range(1, self.node.count):
            self._wait(functools.partial(self._has, f"address-{number}"), f"the launcher of machine {number + 1}")
        own = own_address(self.node.address if self.node.number else self._get("address-1"))
        if name := interface(own):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)

    def failed(self, found: str) -> None:
        """Tell the others of a failure, unless one of them was first."""
        if not self.trouble:
            self.store.compare_set("star1/failed", "", f"{self.node.name}: {found}")
            self.trouble = self._of_another()

    def leave(self) -> None:
        """Say goodbye; the first launcher waits for the others to have done so, since they look at its board."""
        self._over.set()
        self._thread.join()
        try:
            self._set(f"left-{self.node.number}", "1")
            until = time.monotonic() + FAREWELL_S
            names = [f"left-{number}" for number in range(self.node.count)]
            while not (self.node.number or all(map(self._has, names)) or time.monotonic() > until):
                time.sleep(0.1)
        except RuntimeError:  # the first one is gone, and the board with it
            return

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                trouble = self._look()
            except RuntimeError:
                trouble = f"machine 1 of {self.node.count} ({self.node.address}) is gone"
            if trouble:
                self.trouble = trouble
                self._lost()
                return

    def _look(self) -> str:
        """Tell that this machine lives; gives what ended another one."""
        self._beats += 1
        self._set(f"beat-{self.node.number}", str(self._beats))
        if found := self._of_another():
            return found
        now = time.monotonic()
        for number in range(self.node.count):
            beat = self._get(f"beat-{number}") if self._has(f"beat-{number}") else ""
            if self._has(f"left-{number}") or beat != self._seen.get(number, (None, 0))[0]:
                self._seen[number] = (beat, now)
            elif now - self._seen[number][1] > SILENT_S:
                return f"machine {number + 1} of {self.node.count} has been silent for {SILENT_S:g} s"
        return ""

    def _of_another(self) -> str:
        """The first failure, if it is not this machine's own."""
        found = self._get("failed") if self._has("failed") else ""
        return "" if found.startswith(f"{self.node.name}: ") else found

    def _has(self, key: str) -> bool:
        return bool(self.store.check([f"star1/{key}"]))

    def _set(self, key: str, value: str) -> None:
        self.store.set(f"star1/{key}", value)

    def _get(self, key: str) -> str:
        return str(self.store.get(f"star1/{key}").decode())


def own_address(other: str) -> str:
    """The address of this machine on the way to another one."""
    family, _, _, _, place = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)
        return str(probe.getsockname()[0])


def interface(address: str) -> str | None:
    """The network interface that has an address."""
    import psutil

    named = psutil.net_if_addrs().items()
    return next((name for name, found in named if any(one.address == address for one in found)), None)
