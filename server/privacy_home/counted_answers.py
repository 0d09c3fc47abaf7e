"""Who was asked for which release of counts: every device, durably, before any question leaves."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from .participation_counts import enter
from .privacy_errors import StreamRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .participation_counts import AnswerCost


def series_of(policy_digest: str, channel: str) -> str:
    """Name the releases of one channel under one policy."""
    return f"{policy_digest} {channel}"


def has_answers(connection: sqlite3.Connection, series: str, release: int) -> bool:
    """Whether any device was counted for a release of a series."""
    row = connection.execute(
        "SELECT 1 FROM answers WHERE series = ? AND release = ? LIMIT 1", (series, release)
    ).fetchone()
    return row is not None


def add_answers(
    connection: sqlite3.Connection,
    series: str,
    release: int,
    device_ids: Sequence[str],
    cost: AnswerCost,
) -> int:
    """Count each device that is asked for a count.

    Returns:
        Greatest number of releases of this series that any one device was asked for.

    Raises:
        StreamRefusedError: a device was asked for this release before.
    """
    try:
        connection.executemany(
            "INSERT INTO answers VALUES (?, ?, ?)",
            [(series, release, device_id) for device_id in device_ids],
        )
    except sqlite3.IntegrityError:
        what = f"a device was asked for release {release} of {series!r} before"
        raise StreamRefusedError("participation counts", what, "ask for the next one") from None
    enter(connection, device_ids)
    changes = (
        cost.mu_squared,
        cost.mu_squared_limit,
        cost.mu_squared_in_all,
        cost.held_out,
        not cost.held_out,
    )
    connection.executemany(
        "UPDATE devices SET counts_mu_squared = counts_mu_squared + ?, "
        "counts_limit = MIN(counts_limit, ?), mu_squared_in_all = MIN(mu_squared_in_all, ?), "
        "answers_held_out = MAX(answers_held_out, ?), "
        "answers_in_training = MAX(answers_in_training, ?) WHERE device = ?",
        [(*changes, device_id) for device_id in device_ids],
    )
    most = connection.execute(
        "SELECT COALESCE(MAX(asked), 0) FROM "
        "(SELECT COUNT(*) AS asked FROM answers WHERE series = ? GROUP BY device)",
        (series,),
    ).fetchone()
    return int(most[0])
