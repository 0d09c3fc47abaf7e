"""What devices say of their own ledgers, beside what the home counted for them.

A device may have taken part for other homes, too, before it came to this one: it then says more
than was counted, by an amount that stays as it is. Only a home that has forgotten steps, or devices
that train elsewhere at the same time, make it grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .participation_counts import enter

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Standing:
    """What a home knows of one device before it speaks.

    Attributes:
        counted: steps to which the home invited it, the one at hand included.
        surplus: most by which its words so far passed the count of their time, at least 0; None
            where it has not spoken, or spoke to a home that did not keep this.
    """

    counted: int
    surplus: int | None

    def grows_with(self, participations: int) -> bool:
        """Tell whether a word is further ahead of the count than any word before it."""
        return self.surplus is not None and participations - self.counted > self.surplus


def standings(connection: sqlite3.Connection, device_ids: Iterable[str]) -> dict[str, Standing]:
    """Return what is known of some devices; of one never seen, nothing."""
    found = {}
    for device_id in device_ids:
        row = connection.execute(
            "SELECT participations, said_surplus FROM devices WHERE device = ?", (device_id,)
        ).fetchone()
        found[device_id] = Standing(0, None) if row is None else Standing(*row)
    return found


def keep_words(connection: sqlite3.Connection, said: Mapping[str, tuple[int, float]]) -> None:
    """Keep what devices said: participations and μ² where they are more, and how far ahead.

    A word counts up to what the policies here let its device spend, and no further: that is enough
    to end what it may spend, and a node that lies for it names no figure that stands for ever.
    """
    enter(connection, said)
    connection.executemany(
        "UPDATE devices SET "
        "said_participations = MAX(said_participations, MIN(?1, max_participations)), "
        "said_mu_squared = MAX(said_mu_squared, MIN(?2, mu_squared_in_all)), "
        "said_surplus = MAX(COALESCE(said_surplus, 0), ?1 - participations) WHERE device = ?3",
        [(count, mu_squared, device_id) for device_id, (count, mu_squared) in said.items()],
    )


def words_of(
    connection: sqlite3.Connection, device_ids: Iterable[str]
) -> dict[str, tuple[int, float]]:
    """Return participations and μ² that were said for devices; who never spoke is left out."""
    found = {}
    for device_id in sorted(set(device_ids)):
        row = connection.execute(
            "SELECT said_participations, said_mu_squared FROM devices WHERE device = ? AND "
            "(said_participations > 0 OR said_mu_squared > 0 OR said_surplus IS NOT NULL)",
            (device_id,),
        ).fetchone()
        if row is not None:
            found[device_id] = (int(row[0]), float(row[1]))
    return found


def clear_words(connection: sqlite3.Connection, device_ids: Iterable[str]) -> None:
    """Forget what was said for devices; what the home itself counted of them stays."""
    connection.executemany(
        "UPDATE devices SET said_participations = 0, said_mu_squared = 0.0, said_surplus = NULL "
        "WHERE device = ?",
        [(device_id,) for device_id in device_ids],
    )


def begin_words_anew(connection: sqlite3.Connection) -> None:
    """Take each device's next word as its first: how far it is ahead then is how far it may be."""
    connection.execute("UPDATE devices SET said_surplus = NULL")
