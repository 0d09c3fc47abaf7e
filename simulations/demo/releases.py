"""The candidate of the rounds in the server's registry: released only where the gate lets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.export_onnx import read_parameters
from server.audits.release_audit import audit_run, audited_policy_of
from server.privacy_home.ledger_report import read_words
from server.privacy_home.privacy_ledger import read_home
from server.registry import LedgerKind, ModelState, PaidBy, admit, move
from server.storage.database import open_database
from server.storage.model_versions import ModelVersions
from server.streams.release_witness import read_witness, weights_digest

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
        bundles: all that are known.
        released: the one of them that devices run.
        run: folder of the rounds, whose ledger paid for what is not public.
        now: aware time.

    Raises:
        RegistryError: a bundle does not quote the ledger entry that pays for it.
        HomeBrokenError: the ledger does not verify.
        AuditRefusedError: the audit finds more than the ledger claims.
    """
    ledger = read_home(run)
    if released.manifest["ledger_entry"]["kind"] == LedgerKind.STREAM:
        audit_run(run)
    with open_database(database_url) as database, database.transaction() as connection:
        registry = ModelVersions(connection)
        for bundle in bundles:
            model = admit(
                version=bundle.version,
                digest=bundle.digest,
                ledger_entry=bundle.manifest["ledger_entry"],
                now=now,
                ledger=ledger,
                claim=bundle.card["privacy"]["epsilon_release"],
                paid_by=_paid_by(bundle, run),
                words=read_words(run, ledger),
            )
            registry.add(model)
            if bundle.version == released.version:
                registry.keep_state(move(model, ModelState.RELEASED, now=now))


def _paid_by(bundle: Bundle, run: Path) -> PaidBy | None:
    """What ties a stream's bundle to its run; None for a bundle of public data."""
    if bundle.manifest["ledger_entry"]["kind"] != LedgerKind.STREAM:
        return None
    return PaidBy(
        policy=audited_policy_of(run),
        witness=read_witness(run),
        weights_digest=weights_digest(read_parameters(bundle.model_bytes).flat()),
    )
