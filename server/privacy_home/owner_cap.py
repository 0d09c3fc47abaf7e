"""Of each owner no more devices in one stream than its policy says, however often it is resumed.

The map of owners is kept when a stream begins and is the same for all of its steps; who resumes it
need not name it again. What is kept of an owner is a digest under the stream's name: enough to
count by, and no name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .counts_file import fact, keep_fact
from .participation_counts import invited_devices
from .privacy_errors import StreamRefusedError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

_OWNERS_FACT: Final = "owners of "


@dataclass(frozen=True, slots=True)
class KeptOwners:
    """Who owns which device of a stream, and which of them were invited already.

    Attributes:
        owners: digest of the owner of each device whose owner is known.
        invited: devices that were ever invited to the stream, sorted.
    """

    owners: Mapping[str, str]
    invited: tuple[str, ...]


def keep_owners(
    connection: sqlite3.Connection,
    stream: str,
    owners: Mapping[str, str],
    *,
    most_devices: int,
    where: Path,
) -> KeptOwners:
    """Keep who owns which device, before a stream's first step; afterwards it must be the same.

    A stream from before owners were kept takes the map that it is resumed with.

    Args:
        connection: to the counts.
        stream: its name.
        owners: of devices, as far as they are known; none takes those that were kept.
        most_devices: of one owner in the stream.
        where: the home, for the error.

    Raises:
        StreamRefusedError: the stream has steps, and other owners or another bound.
    """
    digests = {device: _digest(stream, owner) for device, owner in sorted(owners.items())}
    lines = "\n".join(f"{device}\t{owner}" for device, owner in digests.items())
    stated = f"{most_devices}:{hashlib.sha256(lines.encode()).hexdigest()}"
    known = fact(connection, _OWNERS_FACT + stream)
    invited = invited_devices(connection, stream)
    is_known = known == stated or (not owners and known.startswith(f"{most_devices}:"))
    if known and invited and not is_known:
        what = f"began stream {stream!r} with other owners or another bound on their devices"
        raise StreamRefusedError(where, what, "name the file of owners that the run began with")
    if not (known and invited):
        connection.execute("DELETE FROM owners WHERE stream = ?", (stream,))
        connection.executemany(
            "INSERT INTO owners VALUES (?, ?, ?)",
            [(stream, device, owner) for device, owner in digests.items()],
        )
        keep_fact(connection, _OWNERS_FACT + stream, stated)
    rows = connection.execute("SELECT device, owner FROM owners WHERE stream = ?", (stream,))
    return KeptOwners(dict(rows.fetchall()), invited)


def knows_owners(connection: sqlite3.Connection, stream: str = "") -> bool:
    """Whether the owners of a stream's devices are known; without a name, of every stream's."""
    row = connection.execute(
        "SELECT 1 FROM steps WHERE (? = '' OR stream = ?) "
        "AND stream NOT IN (SELECT stream FROM owners) LIMIT 1",
        (stream, stream),
    ).fetchone()
    return row is None


def require_owner_cap(connection: sqlite3.Connection, stream: str) -> None:
    """Refuse a step by which one owner would have more devices in the stream than is allowed.

    Raises:
        StreamRefusedError: some owner would.
    """
    stated = fact(connection, _OWNERS_FACT + stream)
    if not stated:
        return
    most_devices = int(stated.partition(":")[0])
    found = connection.execute(
        "SELECT COUNT(*) AS devices FROM owners JOIN stream_devices USING (stream, device) "
        "WHERE stream = ? GROUP BY owner ORDER BY devices DESC LIMIT 1",
        (stream,),
    ).fetchone()
    if found is not None and found[0] > most_devices:
        what = f"would have {found[0]} devices of one owner in stream {stream!r}"
        remedy = f"choose at most {most_devices} of each owner, over all steps together"
        raise StreamRefusedError("participation counts", what, remedy)


def _digest(stream: str, owner: str) -> str:
    return hashlib.sha256(f"{stream}\n{owner}".encode()).hexdigest()
