"""Of all agents of one store, one runs: two would push each other out of the broker's session."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import StoreBusyError
from ..store.access import named_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def lock_path(store: Path) -> Path:
    """Return the file beside a store that its running agent holds; empty, and gone at its end."""
    return store.with_name(store.name + ".agent.lock")


@contextmanager
def agent_lock(store: Path) -> Iterator[None]:
    """Hold a store's lock for as long as its agent runs; a process that dies lets go of it.

    Raises:
        StoreBusyError: another agent holds it, or the folder cannot be written.
    """
    path = lock_path(store)
    with named_errors(store):
        handle = _held(store, path)
    try:
        yield
    finally:
        # Still held: whoever waits for this very file finds that it is none any more.
        path.unlink(missing_ok=True)
        os.close(handle)


def _held(store: Path, path: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            what = "another agent holds it"
            raise StoreBusyError(store, what, "stop that one first; a device has one") from None
        if _is_at(handle, path):
            return handle
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Tell whether an open file is the one at a path: its former holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
