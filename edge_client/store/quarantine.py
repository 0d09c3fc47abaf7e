"""Damaged stores that were set aside beside the one in use: named by date, only a few kept."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .access import JOURNALS, named_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

MOST_KEPT = 3
FORMER = ".former-"
"""After a store's name: folders of what another device has left, set aside by `init`."""

_MARK = ".damaged-"


def quarantined(store: Path) -> tuple[Path, ...]:
    """Return the files that were set aside, without their journals, the earliest name first."""
    found = store.parent.glob(f"{_escaped(store.name)}{_MARK}*")
    return tuple(sorted(file for file in found if not file.name.endswith(JOURNALS)))


def files_of(damaged: Path) -> tuple[Path, ...]:
    """Return a file that was set aside with the journals that belong to it."""
    names = (damaged.name + ending for ending in ("", *JOURNALS))
    return tuple(file for name in names if (file := damaged.with_name(name)).exists())


def make_place(store: Path) -> None:
    """Remove the earliest files that were set aside, until one more may be kept."""
    with named_errors(store):
        for damaged in quarantined(store)[: -(MOST_KEPT - 1)]:
            for file in files_of(damaged):
                file.unlink()


def set_aside(store: Path, *, now: datetime) -> Path | None:
    """Rename a store and its journals; the store goes last, so that no journal meets another one.

    Args:
        store: damaged; the caller holds its lock as far as it can be held.
        now: names the file.

    Returns:
        Where it is now, None where there was no file.
    """
    stamp = f"{now:%Y%m%dT%H%M%SZ}"
    taken = {file.name for file in store.parent.iterdir()}
    name = f"{store.name}{_MARK}{stamp}"
    number = 1
    while name in taken:
        number += 1
        name = f"{store.name}{_MARK}{stamp}-{number}"
    with named_errors(store):
        for ending in (*JOURNALS, ""):
            file = store.with_name(store.name + ending)
            if file.exists():
                file.rename(store.with_name(name + ending))
    place = store.with_name(name)
    return place if place.exists() else None


@contextmanager
def folder_lock(store: Path) -> Iterator[None]:
    """Let one process alone replace the store; others wait. Nothing is left behind."""
    with named_errors(store):
        handle = os.open(store.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _escaped(name: str) -> str:
    from glob import escape

    return escape(name)
