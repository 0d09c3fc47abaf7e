"""What the commands of releases share: their options, and the desk that the settings name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .hub import settings_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.bundle import Bundle

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


def model_in_use(
    spec: str, *, db: str | None, folder: str | None, config: str | None
) -> tuple[Bundle, str]:
    """Return what devices of a feature specification have, and what says so.

    Releases are known where their folder is there, or is named. Where none are, nothing was
    released from here: devices have the default bundle.

    Raises:
        StorageError: releases are known, and their database is not there.
    """
    from models.bundle import DEFAULT, load_bundle

    settings = settings_from({"db": db, "releases": folder, "config": config})
    if folder is None and not settings.releases.is_dir():
        return load_bundle(DEFAULT), f"default (no releases in {settings.releases})"
    with opened_desk(db=db, folder=folder, key_file=None, config=config, must_exist=True) as desk:
        return desk.in_use(spec), f"releases in {settings.releases}"


def named(desk: ReleaseDesk, number: int | None) -> int:
    """Return the release that is meant: the one that is named, or the latest."""
    from ..releases.desk import latest
    from ..storage.releases import Releases

    if number is not None:
        return number
    with desk.database.transaction() as connection:
        return latest(Releases(connection).all()).rollout.number
