"""Of all agents of one store, one runs: two would push each other out of the broker's session.

Nobody removes the lock but who holds it, and nobody takes a store away while an agent holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import StoreBusyError
from ..store.access import named_errors, raise_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def lock_path(store: Path) -> Path:
    """Return the file beside a store that its running agent holds; empty, and gone at its end."""
    return store.with_name(store.name + ".agent.lock")


_NO_FILE_CAN_BE_MADE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOENT})


@contextmanager
def agent_lock(store: Path) -> Iterator[None]:
    """Hold a store's lock for as long as its agent runs; a process that dies lets go of it.

    Raises:
        StoreBusyError: another agent holds it, or the folder cannot be written.
    """
    with named_errors(store):
        handle = _held(store, "another agent holds it", "stop that one first; a device has one")
    try:
        yield
    finally:
        _let_go(handle, store)


@contextmanager
def no_agent(store: Path) -> Iterator[None]:
    """Keep agents from a store while it is taken away.

    Raises:
        StoreBusyError: its agent runs, or the folder cannot be written.
    """
    handle = None
    try:
        handle = _held(store, "its agent runs", "nothing was removed; stop the agent first")
    except OSError as error:
        # A running agent has made its lock: where there is none and no room for one, none runs.
        if error.errno not in _NO_FILE_CAN_BE_MADE:
            raise_named(store, error)
    try:
        yield
    finally:
        if handle is not None:
            _let_go(handle, store)


def _held(store: Path, what: str, remedy: str) -> int:
    path = lock_path(store)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise StoreBusyError(store, what, remedy) from None
        if _is_at(handle, path):
            return handle
        os.close(handle)


def _let_go(handle: int, store: Path) -> None:
    path = lock_path(store)
    try:
        # Still held: whoever waits for this very file finds that it is none any more.
        if _is_at(handle, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Tell whether an open file is the one at a path: its former holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
