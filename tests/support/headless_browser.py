"""A headless Chromium that opens pages and answers questions about them, over its DevTools pipe."""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_WITHIN_S = 40.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# The browser reads commands from descriptor 3 and answers on descriptor 4.
AS_3_AND_4 = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One tab of the browser.

    Attributes:
        events: what the browser told unasked, in order: (method, parameters).
    """

    def __init__(self, commands: int, answers: int) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._commands, self._answers = commands, answers
        self._selector = selectors.DefaultSelector()
        self._selector.register(answers, selectors.EVENT_READ)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Accessibility"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, path: Path, *, width: int, scheme: str) -> None:
        """Open a file as a reader with such a window and such a preference sees it."""
        self.events.clear()
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[preference])
        self.ask("Page.navigate", url=path.as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._next_message()

    def value_of(self, expression: str) -> Any:
        """Return what a JavaScript expression gives, as plain values."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def _next_message(self) -> dict[str, Any]:
        last_moment = time.monotonic() + ANSWER_WITHIN_S
        while b"\0" not in self._buffer:
            if not self._selector.select(max(0.0, last_moment - time.monotonic())):
                raise TimeoutError(f"the browser said nothing for {ANSWER_WITHIN_S} s")
            more = os.read(self._answers, 1 << 16)
            if not more:
                raise RuntimeError("the browser has gone")
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "id" not in message:
            self.events.append((message["method"], message.get("params", {})))
        return message


@contextmanager
def open_browser(chromium: Path, folder: Path) -> Iterator[Page]:
    """Start Chromium with an empty profile in `folder`; it ends with the block."""
    theirs_in, ours_out = _pipe()
    ours_in, theirs_out = _pipe()
    process = subprocess.Popen(
        [
            sys.executable,
            "-S",
            "-c",
            AS_3_AND_4,
            str(theirs_in),
            str(theirs_out),
            str(chromium),
            *FLAGS,
            f"--user-data-dir={folder}",
        ],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        # The browser ends when its pipe does.
        os.close(ours_out)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_in)


def _pipe() -> tuple[int, int]:
    """Return both ends of a pipe, on descriptors that 3 and 4 cannot overwrite."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
