"""Receipts: the server's signed word on each released step, held against the device's own ledger.

What is kept stands in `<store>.receipts.jsonl`, one line a receipt: the state, what differs, the
server's entry, and its envelope as it came, so that anybody with the public key can check it again.
A receipt is no basis of accounting. The device's ledger counts, whatever the server says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from models.durable_file import write_durably
from models.errors import PlaceRefusedError
from models.wire.rounds import ReleaseReceipt
from privacy.canonical_json import canonical_json
from privacy.errors import LedgerBrokenError, UnsupportedEventError
from privacy.events import CorrelatedRelease, Participation
from privacy.ledger import entry_from_line

from ..errors import ParticipationRefusedError, StoreBusyError
from ..store.erasure import receipts_path
from ..store.quarantine import folder_lock
from .task_policy import opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from privacy.ledger import LedgerEntry

    from .ledger_file import DeviceLedger

logger = logging.getLogger(__name__)

MOST_PER_STEP = 4
"""Most receipts kept of one step: a server that says many things is caught after two."""
_COMPARED = (
    "noise_multiplier",
    "clipping_norm",
    "cohort_size",
    "policy_digest",
    "clip_noise_multiplier",
)


class ReceiptState(StrEnum):
    """What a receipt is worth."""

    MATCHES = "matches"
    DIFFERS = "differs"
    NONE_CAME = "none_came"
    NOT_DEBITED = "not_debited"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedReceipt:
    """A receipt whose signature holds, held against the ledger.

    Attributes:
        stream: of the step.
        index: of the step.
        state: `matches`, `differs`, or `not_debited` where this device did not take part.
        differs: names of what is not as it was debited.
        noise_only: whether the round was aborted, so that what left is noise.
        entry: the server's entry, as it was signed.
    """

    stream: str
    index: int
    state: ReceiptState
    differs: tuple[str, ...]
    noise_only: bool
    entry: Mapping[str, Any]


def check_receipt(
    receipt: ReleaseReceipt, *, ledger: DeviceLedger, keys: Mapping[str, bytes]
) -> CheckedReceipt:
    """Hold a receipt against what the device has debited.

    Args:
        receipt: as it came.
        ledger: of the device, verified.
        keys: Ed25519 public keys (32 raw bytes) that may sign policies and receipts, by key id.

    Raises:
        ParticipationRefusedError: none of the keys has signed it: it is nobody's word.
    """
    line = opened(receipt.entry, keys).decode("utf-8", "replace").rstrip("\n")
    debited = _debited(ledger, receipt)
    try:
        entry = entry_from_line(line, index=0)
        differs, noise_only = _differences(receipt, entry, debited, ledger), _noise_only(entry)
        content: Mapping[str, Any] = {**entry.fields, "hash": entry.hash}
    except (LedgerBrokenError, UnsupportedEventError, ValueError, TypeError, KeyError):
        differs, noise_only, content = ("entry",), False, {}
    state = ReceiptState.DIFFERS if differs else ReceiptState.MATCHES
    return CheckedReceipt(
        stream=receipt.stream,
        index=receipt.index,
        state=ReceiptState.NOT_DEBITED if debited is None else state,
        differs=differs,
        noise_only=noise_only,
        entry=content,
    )


def keep_receipt(
    path: Path, checked: CheckedReceipt, receipt: ReleaseReceipt, *, now: datetime
) -> bool:
    """Keep a receipt of a step that the device has debited, once.

    Args:
        path: of the store.
        checked: from `check_receipt`.
        receipt: as it came.
        now: aware time.

    Returns:
        Whether it was kept now.

    Raises:
        StoreBusyError: the folder cannot be written.
    """
    if checked.state is ReceiptState.DIFFERS:
        logger.error(
            "the server's receipt for step %d of stream %s differs from what was debited: %s",
            checked.index,
            checked.stream,
            ", ".join(checked.differs),
        )
    if checked.state is ReceiptState.NOT_DEBITED:
        return False
    line = canonical_json(
        {
            "at": now.isoformat(),
            "stream": checked.stream,
            "index": checked.index,
            "state": checked.state.value,
            "differs": list(checked.differs),
            "noise_only": checked.noise_only,
            "entry": dict(checked.entry),
            "signed": receipt.entry,
        }
    )
    file = receipts_path(path)
    with folder_lock(path):
        kept = [one for one in read_receipts(path) if _step(one) == (checked.stream, checked.index)]
        if len(kept) >= MOST_PER_STEP or any(one["signed"] == receipt.entry for one in kept):
            return False
        try:
            before = file.read_bytes() if file.exists() else b""
            write_durably(file, before + line.encode("ascii") + b"\n")
            file.chmod(0o600)
        except (OSError, PlaceRefusedError) as error:
            what = f"cannot be written ({error})"
            raise StoreBusyError(file, what, "check the folder and the disk") from error
    return True


def read_receipts(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the receipts that were kept, the first first; a line that is none is left out.

    Args:
        path: of the store.
    """
    try:
        lines = receipts_path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and _is_receipt(value):
            found.append(value)
    return tuple(found)


def checked_again(
    receipts: Iterable[Mapping[str, Any]], *, ledger: DeviceLedger, keys: Mapping[str, bytes]
) -> tuple[dict[str, Any], ...]:
    """Check kept receipts once more from their envelopes, whatever their lines say.

    Args:
        receipts: from `read_receipts`.
        ledger: of the device, verified.
        keys: Ed25519 public keys (32 raw bytes) that may sign receipts, by key id.

    Returns:
        The receipts, with state and differences as they are found now; `signature` differs where
        none of the keys has signed an envelope.
    """
    found = []
    for one in receipts:
        stream, index = _step(one)
        receipt = ReleaseReceipt(stream=stream, index=index, entry=str(one["signed"]))
        try:
            checked = check_receipt(receipt, ledger=ledger, keys=keys)
            state, differs = checked.state, checked.differs
        except ParticipationRefusedError:
            state, differs = ReceiptState.DIFFERS, ("signature",)
        found.append({**one, "state": state.value, "differs": list(differs)})
    return tuple(found)


def state_of_step(
    receipts: Iterable[Mapping[str, Any]], *, stream: str, index: int
) -> tuple[ReceiptState, tuple[str, ...]]:
    """Return what the receipts say of one step, and what differs; one that differs counts."""
    of_step = [one for one in receipts if _step(one) == (stream, index)]
    if not of_step:
        return ReceiptState.NONE_CAME, ()
    for one in of_step:
        if one["state"] != ReceiptState.MATCHES:
            return ReceiptState.DIFFERS, tuple(map(str, one["differs"]))
    return ReceiptState.MATCHES, ()


def _debited(ledger: DeviceLedger, receipt: ReleaseReceipt) -> Participation | None:
    for event in ledger.events:
        if isinstance(event, Participation) and (event.stream, event.index) == (
            receipt.stream,
            receipt.index,
        ):
            return event
    return None


def _differences(
    receipt: ReleaseReceipt,
    entry: LedgerEntry,
    debited: Participation | None,
    ledger: DeviceLedger,
) -> tuple[str, ...]:
    release = entry.event
    if not isinstance(release, CorrelatedRelease):
        return ("mechanism",)
    named = {"stream": receipt.stream, "index": receipt.index}
    differs = [name for name, value in named.items() if getattr(release, name) != value]
    if entry.kind != "stream":
        differs.append("kind")
    if hashlib.sha256(canonical_json(entry.fields).encode("ascii")).hexdigest() != entry.hash:
        differs.append("hash")
    if debited is None:
        return tuple(differs)
    debits = dataclasses.asdict(debited)
    differs += [name for name in _COMPARED if getattr(release, name) != debits[name]]
    own = sum(
        isinstance(event, Participation)
        and event.stream == receipt.stream
        and event.index <= receipt.index
        for event in ledger.events
    )
    if release.most_participations < own:
        # The server charges less than this very device has debited.
        differs.append("most_participations")
    return tuple(differs)


def _noise_only(entry: LedgerEntry) -> bool:
    release = entry.event
    return isinstance(release, CorrelatedRelease) and release.noise_only


def _is_receipt(value: Mapping[str, Any]) -> bool:
    return (
        isinstance(value.get("stream"), str)
        and type(value.get("index")) is int
        and isinstance(value.get("signed"), str)
        and isinstance(value.get("differs"), list)
        and value.get("state") in {ReceiptState.MATCHES.value, ReceiptState.DIFFERS.value}
    )


def _step(one: Mapping[str, Any]) -> tuple[str, int]:
    return str(one["stream"]), int(one["index"])
