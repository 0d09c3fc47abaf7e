"""Receipts both ways: the ledger entry of a release, signed, and what devices say they debited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.wire.envelope import sign_payload
from models.wire.rounds import DeviceReceipt, ReleaseReceipt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from models.wire.envelope import SigningKey
    from privacy import LedgerEntry


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
    said: Mapping[str, tuple[int, float]], counted: NDArray[np.int64]
) -> bool:
    """Tell whether devices' ledgers show steps that this home does not know: it was put back.

    A device's first word to a home says nothing: it may have spent before in other homes. Nor does
    the word of a minority, for one node must never end a run. So more than half of those that the
    home knew already must say more than it counted for them and was told by them.

    Args:
        said: participations and μ² by device, after the step at hand.
        counted: int64, shape (n_devices,): participations in the order of `said`, by the home's
            count or their own earlier word, whichever is more; the step at hand included.
    """
    known: list[bool] = [
        participations > before
        for (participations, _), before in zip(said.values(), counted.tolist(), strict=True)
        if before > 1
    ]
    return 2 * known.count(True) > len(known)
