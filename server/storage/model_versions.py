"""The model registry's rows; what may stand in them is decided in `server.registry`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from ..errors import RegistryError
from ..registry import LedgerKind, ModelState, RegisteredModel
from .tables import models


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """The registry, within one transaction."""

    connection: Connection

    def add(self, model: RegisteredModel) -> None:
        """Add a model; adding the same one again changes nothing.

        Raises:
            RegistryError: another bundle has this version already.
        """
        known = self.get(model.version)
        if known is None:
            self.connection.execute(
                insert(models).values(
                    version=model.version,
                    digest=model.digest,
                    state=model.state.value,
                    ledger_kind=model.ledger_kind.value,
                    ledger_hash=model.ledger_hash,
                    added_at=model.added_at,
                    state_at=model.state_at,
                )
            )
        elif known.digest != model.digest:
            what = "is in the registry with another digest"
            raise RegistryError(model.version, what, "give the bundle a new version")

    def keep_state(self, model: RegisteredModel) -> None:
        """Keep a model's new state."""
        self.connection.execute(
            update(models)
            .where(models.c.version == model.version)
            .values(state=model.state.value, state_at=model.state_at)
        )

    def get(self, version: str) -> RegisteredModel | None:
        """Return a model, None where there is none of this version."""
        found = [model for model in self.all() if model.version == version]
        return found[0] if found else None

    def all(self) -> tuple[RegisteredModel, ...]:
        """Return every model, in the order in which they entered."""
        rows = self.connection.execute(select(models).order_by(models.c.added_at, models.c.version))
        return tuple(
            RegisteredModel(
                version=row.version,
                digest=row.digest,
                state=ModelState(row.state),
                ledger_kind=LedgerKind(row.ledger_kind),
                ledger_hash=row.ledger_hash,
                added_at=row.added_at,
                state_at=row.state_at,
            )
            for row in rows
        )
