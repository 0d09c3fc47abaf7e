"""Machines of their own, as far as the network goes: namespaces joined by a bridge.

Each has an address, knows the others by name, and runs a shell whose state lasts from one block of
commands to the next. It takes root and `ip` (iproute2).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MARK = "__block_is_done__"
NETWORK = "10.231.77"


def why_not() -> str | None:
    """Say why this machine allows no namespaces, None where it does."""
    if shutil.which("ip") is None:
        return "ip is not installed: apt-get install --no-install-recommends iproute2"
    probe = f"fedcell-probe-{os.getpid()}"
    made = _ip("netns", "add", probe)
    if made.returncode:
        return f"this machine makes no network namespaces: {made.stderr.strip()}"
    _ip("netns", "delete", probe)
    return None


@dataclass
class Machine:
    """One namespace, and a shell in it."""

    name: str
    space: str
    folder: Path
    environment: Mapping[str, str]
    errors: IO[bytes] = field(init=False)
    shell: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.errors = (self.folder / "shell.err").open("wb")
        self.shell = subprocess.Popen(
            ["ip", "netns", "exec", self.space, "bash", "-eu", "-o", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )

    def run(self, block: str) -> str:
        """Run a block of commands, and return what it printed; one that fails ends the shell."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{block}\necho {MARK}\n")
        self.shell.stdin.flush()
        printed = []
        for line in self.shell.stdout:
            if line.strip() == MARK:
                return "".join(printed)
            printed.append(line)
        said = (self.folder / "shell.err").read_text()[-2000:]
        raise AssertionError(f"{self.name}: a command failed\n{block}\n{''.join(printed)}\n{said}")

    def end(self) -> None:
        """End everything that runs in the namespace."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 20
            for pid in self._pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            while self._pids() and time.monotonic() < deadline:
                time.sleep(0.2)
        self.shell.wait(10)
        for pipe in (self.shell.stdin, self.shell.stdout, self.errors):
            if pipe is not None:
                pipe.close()

    def _pids(self) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.space).stdout.split()]


@contextmanager
def machines(
    folder: Path, names: Mapping[str, str], *, environment: Mapping[str, str]
) -> Iterator[dict[str, Machine]]:
    """Make machines that reach each other.

    Args:
        folder: of their working folders.
        names: host names by which the others know each, by the machine's own.
        environment: of the shells, besides this process's.
    """
    tag = f"fc{os.getpid() % 100_000}"
    bridge, spaces = f"{tag}b", {name: f"{tag}-{name}" for name in names}
    hosts = "".join(
        f"{NETWORK}.{number} {host}\n" for number, host in enumerate(names.values(), start=1)
    )
    running: dict[str, Machine] = {}
    try:
        _must("link", "add", bridge, "type", "bridge")
        _must("link", "set", bridge, "up")
        for number, (name, space) in enumerate(spaces.items(), start=1):
            _join(space, bridge, number=number, tag=tag)
            known = Path("/etc/netns") / space
            known.mkdir(parents=True)
            (known / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
            running[name] = Machine(name, space, folder / name, environment)
        yield running
    finally:
        for machine in running.values():
            machine.end()
        for space in spaces.values():
            _ip("netns", "delete", space)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
        _ip("link", "delete", bridge)


def _join(space: str, bridge: str, *, number: int, tag: str) -> None:
    inside, outside = f"{tag}i{number}", f"{tag}o{number}"
    _must("netns", "add", space)
    _must("link", "add", inside, "type", "veth", "peer", "name", outside)
    _must("link", "set", outside, "master", bridge, "up")
    _must("link", "set", inside, "netns", space)
    for words in (
        ("addr", "add", f"{NETWORK}.{number}/24", "dev", inside),
        ("link", "set", inside, "up"),
        ("link", "set", "lo", "up"),
    ):
        _must("-n", space, *words)


def _must(*words: str) -> None:
    done = _ip(*words)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
