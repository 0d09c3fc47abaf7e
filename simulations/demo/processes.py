"""Processes of the demo: started by argument lists, watched by what they print, ended by id.

Each prints JSON, a line an event, into a file of the scratch folder, and what goes wrong into
another. Whatever happens, none outlives the context.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import SimulationsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POLL_S = 0.05
END_TIMEOUT_S = 5.0
_SHOWN_LINES = 6


class ProcessError(SimulationsError):
    """A process of the demo failed, or did not do its part in time.

    Attributes:
        name: of the process.
        exit_code: its own, where it is a documented one; else 6.
    """

    exit_code = 6

    def __init__(self, name: str, what: str, *, code: int | None = None, said: str = "") -> None:
        """Say which process, what happened, and what it said."""
        self.name = name
        if code is not None and 3 <= code <= 6:
            self.exit_code = code
        super().__init__(f"{name}: {what}" + (f"; it said: {said}" if said else ""))


class ProgramMissingError(SimulationsError):
    """A command of this package is not installed beside the interpreter."""

    exit_code = 4


def program(name: str) -> str:
    """Return the path of a command of this package.

    Raises:
        ProgramMissingError: it is not beside the interpreter.
    """
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise ProgramMissingError(f"{path}: no such command; install fedcell again: pip install -e")
    return str(path)


@dataclass(slots=True)
class Child:
    """One running process.

    Attributes:
        name: for messages.
        process: the process.
        stdout: file of what it prints.
        stderr: file of what it says went wrong.
    """

    name: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    def events(self) -> list[dict[str, Any]]:
        """Return the JSON objects that it has printed so far; a line still being written waits.

        Raises:
            ProcessError: it printed something else.
        """
        whole_lines = self.stdout.read_bytes().split(b"\n")[:-1]
        try:
            return [dict(json.loads(line)) for line in whole_lines]
        except (ValueError, TypeError) as error:
            raise ProcessError(self.name, f"printed what is no JSON object ({error})") from error

    def said(self) -> str:
        """Return the last lines of what it said went wrong, in one."""
        lines = self.stderr.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-_SHOWN_LINES:])

    def failure(self, allowed: Sequence[int] = (0,)) -> ProcessError | None:
        """Return the error of a process that has ended with another code than the allowed ones."""
        code = self.process.poll()
        if code is None or code in allowed:
            return None
        return ProcessError(self.name, f"ended with code {code}", code=code, said=self.said())

    def end(self) -> None:
        """End it in order, at once if it does not follow; nothing happens where it has ended."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True)
class Children:
    """The processes of the demo, all ended when the context is left.

    Attributes:
        scratch: folder for what they print.
    """

    scratch: Path
    _children: list[Child] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Devices first: the server hears their farewells.
        for child in reversed(self._children):
            child.end()

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        """Start a process that does not hear the terminal's Ctrl-C: the demo ends it itself."""
        stdout, stderr = self.scratch / f"{name}.out", self.scratch / f"{name}.err"
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        child = Child(name, process, stdout, stderr)
        self._children.append(child)
        return child

    def wait_for(
        self, what: str, condition: Callable[[], bool], *, timeout_s: float, of: Child
    ) -> None:
        """Wait until something holds.

        Args:
            what: is waited for, for the message.
            condition: looked at again and again.
            timeout_s: how long at most.
            of: the process that is to bring it about.

        Raises:
            ProcessError: a process failed meanwhile, or the time is up.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            for child in self._children:
                failure = child.failure()
                if failure is not None:
                    raise failure
            if of.process.poll() is not None and not condition():
                raise ProcessError(of.name, f"ended before {what}", said=of.said())
            if time.monotonic() > deadline:
                late = f"{what} did not come within {timeout_s:g} s"
                raise ProcessError(of.name, late, said=of.said())
            time.sleep(POLL_S)
