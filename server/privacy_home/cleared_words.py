"""An operator takes back what was said for devices, with proof and with a line that stays.

A node that lies for the devices behind it can say that they have spent all that policies here let
them spend: they are then never invited again. Once the node is found out, the words are cleared;
what this home itself counted of the devices stays, and so does each device's own ledger, which
refuses what it cannot pay for and says so again.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import sync_folder

from . import counts_file
from .device_words import clear_words, words_of
from .home_files import COUNTS_FILE, is_behind, require_own_folder
from .home_lock import locked_home
from .home_repair import require_newest
from .ledger_file import LEDGER_FILE, read_ledger_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

OPERATIONS_FILE: Final = "operations.jsonl"
"""One JSON line for each thing that an operator did to the home; it holds stable device ids."""


def clear_said(
    home: Path, device_ids: Iterable[str], *, head: str, asked_by: str, now: datetime
) -> tuple[str, ...]:
    """Clear what was said for devices; the line of it is durable before anything changes.

    Args:
        home: the folder.
        device_ids: whose words are cleared.
        head: hash of the ledger's newest entry, or its first 16 digits or more.
        asked_by: account and host.
        now: aware time.

    Returns:
        The devices of which anything had been said, sorted.

    Raises:
        HomeBrokenError: ledger and counts do not agree, or the ledger does not end with that entry;
            nothing was changed.
        HomeUnavailableError: another process holds the home, or the disk refuses.
    """
    path = home / LEDGER_FILE
    with locked_home(home), counts_file.transaction(home / COUNTS_FILE) as connection:
        require_own_folder(home, connection)
        entries = read_ledger_file(path)
        require_newest(path, entries, head)
        is_behind(path, entries, connection)
        said = words_of(connection, device_ids)
        if said:
            line = {
                "at": now.isoformat(),
                "what": "words_cleared",
                "asked_by": asked_by,
                "head": entries[-1].hash,
                "said": {device: list(words) for device, words in said.items()},
            }
            _append(home, line)
            clear_words(connection, said)
        return tuple(sorted(said))


def read_operations(home: Path) -> list[dict[str, Any]]:
    """Return what operators did to a home, oldest first; a line that a crash tore is left out."""
    try:
        lines = (home / OPERATIONS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            read = json.loads(line)
        except ValueError:
            continue
        if isinstance(read, dict):
            found.append(read)
    return found


def _append(home: Path, line: dict[str, Any]) -> None:
    path = home / OPERATIONS_FILE
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with os.fdopen(os.open(path, flags, 0o600), "ab") as file:
        file.write((json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(home)
