"""Which models may be released: candidate, released, retired. The rules, without storage.

A model enters with the ledger entry that its card quotes. Made from public data alone, that entry
is of kind `public`; anything else needs an entry of a real stream, with its hash. What a simulated
noise source stamped is refused, whatever else the card says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ModelState(StrEnum):
    """The life of a model version."""

    CANDIDATE = "candidate"
    RELEASED = "released"
    RETIRED = "retired"


class LedgerKind(StrEnum):
    """Kinds of ledger entry under which a model may enter."""

    PUBLIC = "public"
    STREAM = "stream"


_NEXT = {
    ModelState.CANDIDATE: frozenset({ModelState.RELEASED, ModelState.RETIRED}),
    ModelState.RELEASED: frozenset({ModelState.RETIRED}),
    ModelState.RETIRED: frozenset[ModelState](),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """One model version.

    Attributes:
        version: its name.
        digest: SHA-256 of its bundle, 64 hex digits.
        state: how far it has come.
        ledger_kind: kind of the ledger entry that pays for it.
        ledger_hash: hash of that entry; None for public data, which spends nothing.
        added_at: when it entered.
        state_at: when it reached its state.
    """

    version: str
    digest: str
    state: ModelState
    ledger_kind: LedgerKind
    ledger_hash: str | None
    added_at: datetime
    state_at: datetime


def admit(
    *, version: str, digest: str, ledger_entry: Mapping[str, Any] | None, now: datetime
) -> RegisteredModel:
    """Return a new candidate.

    Args:
        version: the model's version.
        digest: SHA-256 of its bundle.
        ledger_entry: what its card quotes: `kind`, and for a stream the entry's `hash`.
        now: aware time.

    Raises:
        RegistryError: no ledger entry, one of another kind, or one without its hash.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise RegistryError(version, "has no SHA-256 digest", "build the bundle again")
    if not ledger_entry:
        remedy = "train it through accounted rounds, or from public data alone"
        raise RegistryError(version, "quotes no ledger entry", remedy)
    kind = ledger_entry.get("kind")
    if ledger_entry.get("simulated") or kind not in set(LedgerKind):
        remedy = "only models from public data or a real stream are released"
        shown = "simulated" if ledger_entry.get("simulated") else repr(kind)
        raise RegistryError(version, f"quotes a ledger entry of kind {shown}", remedy)
    entry_hash = ledger_entry.get("hash")
    if kind == LedgerKind.STREAM and not (
        isinstance(entry_hash, str) and _DIGEST.fullmatch(entry_hash)
    ):
        remedy = "quote the entry's hash in the model card"
        raise RegistryError(version, "quotes a stream's ledger entry without its hash", remedy)
    return RegisteredModel(
        version=version,
        digest=digest,
        state=ModelState.CANDIDATE,
        ledger_kind=LedgerKind(kind),
        ledger_hash=entry_hash,
        added_at=now,
        state_at=now,
    )


def move(model: RegisteredModel, state: ModelState, *, now: datetime) -> RegisteredModel:
    """Return the model in its new state.

    Raises:
        RegistryError: the state cannot follow the present one.
    """
    if state not in _NEXT[model.state]:
        following = ", ".join(sorted(_NEXT[model.state])) or "nothing"
        remedy = f"after {model.state} may come {following}"
        raise RegistryError(model.version, f"cannot go from {model.state} to {state}", remedy)
    return replace(model, state=state, state_at=now)
