"""One process of a deployment: started, ended, and what it said last."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .flower_commands import Part

MOST_LOG_BYTES = 16 * 2**20
_LAST_BYTES = 4096
_SEEN_LINES = 3
_DEAD = frozenset("ZXx")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(slots=True)
class PartProcess:
    """A process that runs a part, in a session of its own.

    Attributes:
        part: what it runs.
    """

    part: Part
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, environment: Mapping[str, str], *, folder: Path) -> int:
        """Start it, and return the number of its process.

        Raises:
            OSError: the program cannot be started, or its log cannot be written.
        """
        words = (sys.executable, "-P", "-m", "server.deployment.tethered", str(os.getpid()))
        with self.part.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*words, *self.part.words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
                umask=0o077,
            )
        return self._process.pid

    @property
    def pid(self) -> int | None:
        """The number of its process, None where none was started."""
        return None if self._process is None else self._process.pid

    def exit_code(self) -> int | None:
        """Return how its process ended, None while it lives; a signal's number is negative."""
        return None if self._process is None else self._process.poll()

    def lives(self) -> bool:
        """Tell whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def ask_to_end(self) -> None:
        """Ask it and all that it started to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started at once."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, and tell whether it came."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_for_group(self, timeout_s: float) -> bool:
        """Wait until all that it started has ended too, and tell whether it has."""
        end = time.monotonic() + timeout_s
        while self._process is not None and _group_lives(self._process.pid):
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        return True

    def last_words(self) -> str:
        """Return the last lines of its log, in one."""
        try:
            with self.part.log.open("rb") as log:
                log.seek(max(log.seek(0, os.SEEK_END) - _LAST_BYTES, 0))
                text = log.read().decode(errors="replace")
        except OSError:
            return "nothing"
        lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
        return " · ".join(lines[-_SEEN_LINES:]) or "nothing"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            # Its own session is its group: what SuperExec started is in it too.
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def _group_lives(group: int) -> bool:
    """Tell whether a process of a group lives; one that only waits to be reaped does not."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # After the name in parentheses: state, parent, group.
            state, _, found = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(found) == group and state not in _DEAD:
            return True
    return False


def shorten_log(path: Path, *, most_bytes: int = MOST_LOG_BYTES) -> bool:
    """Put a log that has grown too long aside as `<name>.1`, and begin it anew where it is.

    The processes hold it open for appending, so it is copied and cut, not renamed; a line that is
    written between both is lost.

    Returns:
        Whether that was needed.
    """
    try:
        if path.stat().st_size <= most_bytes:
            return False
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True
