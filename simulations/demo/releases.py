"""The candidate of the rounds in the server's registry: there only where the gate lets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.registry import ModelState, move
from server.releases.admission import Payment, admitted
from server.storage.database import open_database
from server.storage.model_versions import ModelVersions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from models.bundle import Bundle


def register(
    database_url: str,
    bundles: Sequence[Bundle],
    *,
    released: Bundle,
    run: Path,
    now: datetime,
) -> None:
    """Enter bundles as candidates, and release one of them.

    A model that devices paid for is audited first.

    Args:
        database_url: of the server; made where it does not exist.
        bundles: the default one, and the candidate where the gate passed it.
        released: the one of them that devices run.
        run: folder of the rounds, whose ledger paid for what is not public.
        now: aware time.

    Raises:
        RegistryError: a bundle has no card, does not quote the ledger entry that pays for it, or
            was not passed by the quality gate.
        HomeBrokenError: the ledger does not verify.
        AuditRefusedError: the audit finds more than the ledger claims.
    """
    models = [admitted(bundle, Payment(run=run), now=now) for bundle in bundles]
    with open_database(database_url) as database, database.transaction() as connection:
        registry = ModelVersions(connection)
        for model in models:
            registry.add(model)
            if model.version == released.version:
                registry.keep_state(move(model, ModelState.RELEASED, now=now))
