"""What the commands of releases share: their options, and the desk that the settings name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .hub import settings_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..releases.desk import ReleaseDesk

Folder = Annotated[
    str | None, typer.Option("--releases", metavar="DIR", help="Folder of releases.")
]
Key = Annotated[
    str | None,
    typer.Option("--release-key", metavar="FILE", help="The server's own release key."),
]
Number = Annotated[
    int | None, typer.Argument(metavar="[NUMBER]", help="Of the release; else the latest.")
]


@contextmanager
def opened_desk(
    *,
    db: str | None,
    folder: str | None,
    key_file: str | None,
    config: str | None,
    must_exist: bool = False,
) -> Iterator[ReleaseDesk]:
    """Open the desk that the settings name; the key only where its file is there."""
    from ..releases.desk import ReleaseDesk
    from ..signer import load_signer
    from ..storage.database import open_database

    settings = settings_from(
        {"db": db, "releases": folder, "release_key": key_file, "config": config}
    )
    has_key = settings.release_key.exists()
    key = load_signer(settings.release_key).key if has_key else None
    with open_database(settings.db, must_exist=must_exist) as database:
        yield ReleaseDesk(database, settings.releases, key=key)


def named(desk: ReleaseDesk, number: int | None) -> int:
    """Return the release that is meant: the one that is named, or the latest."""
    from ..releases.desk import latest
    from ..storage.releases import Releases

    if number is not None:
        return number
    with desk.database.transaction() as connection:
        return latest(Releases(connection).all()).rollout.number
