"""Receipts both ways: the ledger entry of a release, signed, and what devices say they debited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.wire.envelope import sign_payload
from models.wire.rounds import DeviceReceipt, ReleaseReceipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from models.wire.envelope import SigningKey
    from privacy import LedgerEntry

    from ..privacy_home.device_words import Standing

RECEIPT_CHARACTERS: Final = 256
"""Longest line of a receipt; devices fill theirs up to 192."""
LEAST_WITNESSES: Final = 2
"""Devices that must show forgotten releases, however few say anything."""


def release_receipt(
    entry: LedgerEntry, *, stream: str, index: int, key: SigningKey
) -> ReleaseReceipt:
    """Return what each invited node is handed once a step is released.

    Args:
        entry: of the step; its line is what is signed.
        stream: of the step.
        index: of the step.
        key: of the operator.
    """
    envelope = sign_payload(entry.to_line().encode("ascii"), key)
    return ReleaseReceipt(stream=stream, index=index, entry=envelope.decode("ascii"))


def are_bounded(lines: Sequence[object], *, num_devices: int) -> bool:
    """Tell whether receipts are no more, and no longer, than devices write; none of them is parsed.

    Args:
        lines: as a reply brought them.
        num_devices: that the node was asked for.
    """
    return len(lines) <= num_devices and all(
        isinstance(line, str) and len(line) <= RECEIPT_CHARACTERS for line in lines
    )


def said_by_devices(
    lines: Iterable[str], *, device_of: Mapping[str, str]
) -> dict[str, tuple[int, float]]:
    """Return what devices say of their own ledgers: participations and μ², by stable identifier.

    A line that is no receipt, or of a device that the node was not asked for, says nothing: a node
    can speak for the devices behind it alone. It can only ever take itself out.

    Args:
        lines: as a reply brought them.
        device_of: the device behind each pseudonym that the node was given.
    """
    said: dict[str, tuple[int, float]] = {}
    for line in lines:
        try:
            receipt = DeviceReceipt.from_line(line)
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            continue
        device_id = device_of.get(receipt.pseudonym)
        if device_id is not None:
            said[device_id] = (min(receipt.participations, 2**62), receipt.mu_squared)
    return said


def shows_forgotten_releases(
    said: Mapping[str, tuple[int, float]], standings: Mapping[str, Standing]
) -> bool:
    """Tell whether devices' ledgers show steps that this home does not know: it was put back.

    A device may have spent in other homes before: how far it is ahead of this home's count says
    nothing, and its first word says nothing else. Nor does the word of a minority, for one node
    must never end a run. So more than half of all that say something now, and at least two, must be
    further ahead than they ever said before.

    Args:
        said: participations and μ² by device, after the step at hand.
        standings: what the home knows of each of them, before these words are kept.
    """
    ahead = sum(
        standings[device_id].grows_with(participations)
        for device_id, (participations, _) in said.items()
    )
    return ahead >= LEAST_WITNESSES and 2 * ahead > len(said)
