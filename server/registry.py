"""Which models may be released: candidate, released, retired. The rules, without storage.

A model enters with the ledger entry that its card quotes. Made from public data alone, that entry
is of kind `public`; anything else needs an entry of a real stream of correlated noise, which is
looked up in the ledger of the privacy home itself by index, hash and kind: what a card says of
itself proves nothing. What a simulated noise source stamped, or what ran to compare with, is
refused, and so is a card that claims a smaller ε than the ledger gives.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from privacy import LedgerEntry, StreamPolicy

    from .privacy_home.home_words import HomeWords

CLAIM_ROUNDING = 1e-6
"""Relative amount by which a stated ε may lie below the ledger's: cards round."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidBy:
    """The run that made a stream's model, and the weights that the bundle holds.

    Attributes:
        policy: of the run's stream.
        witness: digest of the weights after each step, by the hash of its ledger entry, as the run
            kept it.
        weights_digest: of the bundle's weights (`server.streams.release_witness.weights_digest`).
        proposed_digest: of the bundle that the run's quality gate passed.
    """

    policy: StreamPolicy
    witness: Mapping[str, str]
    weights_digest: str
    proposed_digest: str


def admit(
    *,
    version: str,
    digest: str,
    ledger_entry: Mapping[str, Any] | None,
    now: datetime,
    ledger: Sequence[LedgerEntry] | None = None,
    claim: Mapping[str, Any] | None = None,
    paid_by: PaidBy | None = None,
    words: HomeWords | None = None,
) -> RegisteredModel:
    """Return a new candidate.

    Args:
        version: the model's version.
        digest: SHA-256 of its bundle.
        ledger_entry: what its card quotes: `kind`, and for a stream the entry's `index` and `hash`.
        now: aware time.
        ledger: of the privacy home that paid for it, read and verified; None where none is at hand,
            which is enough for the pinned default bundle alone.
        claim: `value` and `delta` of ε_release, as the card states them; a stream's model needs it.
        paid_by: of the run that made a stream's model.
        words: what that privacy home knows beside its ledger; a stream's model needs it.

    Raises:
        RegistryError: no ledger entry, one of another kind, one that the ledger does not hold, a
            claim below what the ledger gives or devices say, or at another δ than the policy's,
            weights that are not those of the quoted step, or another bundle than was proposed.
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
    if kind == LedgerKind.STREAM:
        if paid_by is not None and paid_by.proposed_digest != digest:
            what = "is not the bundle that the quality gate of its run passed"
            raise RegistryError(version, what, "judge it: fedcell rounds judge RUN")
        _require_paid(
            version, ledger_entry, ledger=ledger, claim=claim, paid_by=paid_by, words=words
        )
    elif not _is_pinned(digest):
        _require_public(version, ledger_entry, ledger=ledger)
    return RegisteredModel(
        version=version,
        digest=digest,
        state=ModelState.CANDIDATE,
        ledger_kind=LedgerKind(kind),
        ledger_hash=entry_hash,
        added_at=now,
        state_at=now,
    )


def _require_paid(
    version: str,
    quoted: Mapping[str, Any],
    *,
    ledger: Sequence[LedgerEntry] | None,
    claim: Mapping[str, Any] | None,
    paid_by: PaidBy | None,
    words: HomeWords | None,
) -> None:
    """Refuse what a stream's ledger does not hold as it is quoted."""
    # Imported where a stream's model enters: the hub, which only reads the registry, needs neither.
    from privacy import CorrelatedRelease, release_epsilon

    from .runs.report_layout import accountable

    entry = _quoted_entry(version, quoted, ledger=ledger)
    event = entry.event
    if entry.kind != LedgerKind.STREAM.value or not isinstance(event, CorrelatedRelease):
        what = (
            f"quotes entry {entry.index}, whose kind is {entry.kind!r} and not a stream's release"
        )
        raise RegistryError(version, what, "release models of real streams with correlated noise")
    if quoted.get("stream", event.stream) != event.stream:
        what = f"quotes entry {entry.index} of another stream"
        raise RegistryError(version, what, "build the bundle again from its run")
    if paid_by is None or paid_by.policy.digest != event.policy_digest:
        what = f"names no run under the policy of entry {entry.index}"
        raise RegistryError(version, what, "name the run that made it")
    if paid_by.witness.get(entry.hash) != paid_by.weights_digest:
        what = f"has other weights than the step that entry {entry.index} paid for"
        raise RegistryError(version, what, "build the bundle again from its run")
    if words is None:
        what = "names a ledger, and not what devices say beside it"
        raise RegistryError(version, what, "name the privacy home that paid for it")
    delta = paid_by.policy.privacy.delta
    paid = accountable([*(ledger or ())][: entry.index + 1])
    spent = release_epsilon(paid, delta=delta)
    # Later releases of the ledger are not in the model; what no ledger explains may be.
    said = accountable(ledger or ())
    if words.is_more_than(said, delta=delta):
        spent = max(spent, words.epsilon(said, delta=delta))
    _require_honest_claim(version, claim or {}, spent, delta=delta)


def _quoted_entry(
    version: str, quoted: Mapping[str, Any], *, ledger: Sequence[LedgerEntry] | None
) -> LedgerEntry:
    """Return the entry that a card quotes, as the ledger itself holds it."""
    entry_hash, index = quoted.get("hash"), quoted.get("index")
    if not (isinstance(entry_hash, str) and _DIGEST.fullmatch(entry_hash)):
        remedy = "quote the entry's hash in the model card"
        raise RegistryError(version, "quotes a ledger entry without its hash", remedy)
    if ledger is None:
        remedy = "name the privacy home that paid for it"
        raise RegistryError(version, "quotes a ledger entry, and no ledger is at hand", remedy)
    is_place = type(index) is int and 0 <= index < len(ledger)
    entry: LedgerEntry | None = ledger[index] if is_place and index is not None else None
    if entry is None or entry.hash != entry_hash:
        what = f"quotes entry {index!r}, which this ledger does not hold"
        raise RegistryError(version, what, "name the privacy home that paid for it")
    return entry


def _is_pinned(digest: str) -> bool:
    """Whether a bundle is the default one, whose digest is pinned in this package."""
    from models.bundle import DEFAULT_FOLDER, DIGEST

    return (DEFAULT_FOLDER / DIGEST).read_text("ascii").strip() == digest


def _require_public(
    version: str, quoted: Mapping[str, Any], *, ledger: Sequence[LedgerEntry] | None
) -> None:
    """Refuse a model that calls itself public, and has no entry that says of what it was made."""
    from privacy import PublicData

    entry = _quoted_entry(version, quoted, ledger=ledger)
    if entry.kind != LedgerKind.PUBLIC.value or not isinstance(entry.event, PublicData):
        what = f"quotes entry {entry.index}, which names no public data"
        raise RegistryError(version, what, "enter the data that it was made of into a ledger")


def _require_honest_claim(
    version: str,
    claim: Mapping[str, Any],
    spent: float,
    *,
    delta: float,
) -> None:
    """Refuse a card whose ε is no number at the policy's δ, or less than ledger or devices say."""
    value, stated = claim.get("value"), claim.get("delta")
    if not isinstance(value, float | int) or not math.isfinite(value) or stated != delta:
        what = f"states no ε_release at its policy's δ = {delta:g}"
        raise RegistryError(version, what, "build the bundle again from its run")
    if value < spent * (1 - CLAIM_ROUNDING):
        what = f"claims ε_release {value:.6g}, and it is {spent:.6g} at δ = {delta:g}"
        raise RegistryError(version, what, "build the bundle again from its run")


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
