"""The lock of a privacy home: of all processes and threads, one writes."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .privacy_errors import HomeUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_FILE: Final = "home.lock"
LOCK_TIMEOUT_S: Final = 10.0
_LOCK_POLL_S: Final = 0.005


@contextmanager
def locked_home(path: Path) -> Iterator[None]:
    """Hold a home's lock: of all processes and threads, one writes.

    Raises:
        HomeUnavailableError: another holds it for too long, or the folder cannot be written.
    """
    try:
        handle = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        remedy = "check the folder and its owner"
        raise HomeUnavailableError(path, f"cannot be used ({error.strerror})", remedy) from error
    try:
        end = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    what = f"was held by another process for {LOCK_TIMEOUT_S:g} s"
                    remedy = "wait for the other run, or end it"
                    raise HomeUnavailableError(path, what, remedy) from None
                time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(handle)
