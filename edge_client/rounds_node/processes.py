"""Flower's processes as a node starts them: without telemetry, secrets or installs at run time."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FlowerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .supernode import SuperNodePlan

END_WITHIN_S = 20.0
NO_SECRETS = ("FEDCELL_DEVICE_TOKEN",)
"""Of our environment: nothing that Flower's processes have to know."""
SUPERNODE = ("-P", "-m", f"{__package__}.supernode")
SUPEREXEC = ("-P", "-m", f"{__package__}.superexec", "flower-superexec")


class Events:
    """Lines of JSON that a process writes to a pipe.

    Args:
        descriptor: of the end that is read; it stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._is_open = True

    def within(self, seconds: float) -> list[Mapping[str, Any]]:
        """Return the events that come within some seconds, at once where one does."""
        if not self._is_open:
            time.sleep(seconds)
            return []
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            if not selector.select(seconds):
                return []
        content = os.read(self._descriptor, 65_536)
        self._is_open = bool(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [json.loads(line) for line in lines]


@contextmanager
def supernode_process(
    plan: SuperNodePlan, file: Path, *, log: int
) -> Iterator[tuple[subprocess.Popen[bytes], Events]]:
    """Run the process that is the SuperNode; it is ended with the block.

    Args:
        plan: what it is told.
        file: that holds it.
        log: descriptor for what Flower says.
    """
    reading, writing = os.pipe()
    try:
        words = [sys.executable, *SUPERNODE, str(file), str(writing)]
        process = started(words, plan, log=log, keeps=(writing,))
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        yield process, Events(reading)
    finally:
        end(process)
        os.close(reading)


def executor_process(plan: SuperNodePlan, *, log: int, parent: int) -> subprocess.Popen[bytes]:
    """Start the SuperExec, which waits for `let_begin`, then starts the app for each task.

    It takes tasks of this start's SuperNode alone, known by its certificate: a stranger who listens
    in its place would hand out code.

    Raises:
        FlowerError: it is not installed.
    """
    program = Path(sys.executable).with_name("flower-superexec")
    if not program.exists():
        raise FlowerError(program, "is missing", "pip install 'fedcell[train]'")
    words = [
        *(sys.executable, *SUPEREXEC),
        *("--runtime-api-address", f"127.0.0.1:{plan.api_port}"),
        *("--root-certificates", str(plan.certificate)),
        *("--superexec-auth-secret-file", plan.secret, "--parent-pid", str(parent)),
    ]
    return started(words, plan, log=log, is_told=True)


def let_begin(executor: subprocess.Popen[bytes]) -> None:
    """Tell a SuperExec that its SuperNode listens."""
    if executor.stdin is not None and not executor.stdin.closed:
        with suppress(OSError):
            executor.stdin.write(b"begin\n")
            executor.stdin.close()


def started(
    words: list[str],
    plan: SuperNodePlan,
    *,
    log: int,
    keeps: tuple[int, ...] = (),
    is_told: bool = False,
) -> subprocess.Popen[bytes]:
    """Start one of Flower's processes.

    Args:
        words: its command line.
        plan: of the SuperNode that it belongs to.
        log: descriptor for what it says.
        keeps: descriptors that it inherits.
        is_told: whether this process tells it something.
    """
    # A session of its own: a Ctrl-C is for the node, which ends its processes in order.
    return subprocess.Popen(
        words,
        stdin=subprocess.PIPE if is_told else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_environment(plan),
        cwd=plan.home,
        pass_fds=keeps,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process in order, or by force where that takes too long."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_WITHIN_S)
    if process.poll() is None:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a TCP port of loopback that nobody holds just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(plan: SuperNodePlan) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in NO_SECRETS}
    programs = str(Path(sys.executable).parent)
    return {
        **own,
        "PATH": os.pathsep.join([programs, own.get("PATH", os.defpath)]),
        "FLWR_HOME": plan.home,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
