"""Which notices are believed, kept, and still true when they are shown. No IO, no clock."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from .errors import NoticeRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from models.wire.envelope import VerifyKey
    from models.wire.messages import Notice, NoticeState

CLOCK_TOLERANCE = timedelta(days=1)
LATEST_WORD_ON_A_FORMER_PACK = timedelta(days=7)
"""A server may still speak of a pack so long after it was taken out: it goes by summaries that are
up to three days old. Of a new pack it knows nothing for 28 days."""


def open_notice(envelope: bytes, *, device_id: str, trusted: Mapping[str, VerifyKey]) -> Notice:
    """Return the notice in a signed envelope.

    Args:
        envelope: what came over the wire.
        device_id: of this device.
        trusted: the server's keys, by key id.

    Raises:
        models.wire.errors.WireError: the signature does not hold, or it is no notice.
        NoticeRefusedError: it is meant for another device.
    """
    from models.wire.codec import decode
    from models.wire.envelope import open_signed
    from models.wire.messages import Notice

    notice = decode(open_signed(envelope, trusted), Notice)
    if notice.device != device_id:
        raise NoticeRefusedError("foreign_device", f"it is meant for {notice.device}")
    return notice


def require_admissible(
    notice: Notice, *, last_sequence: int, now: datetime, notices_wanted: bool
) -> None:
    """Refuse a genuine notice that must not be shown.

    The sequence number is the authority against replay; the time comes second, with a tolerance,
    because device clocks are wrong.

    Args:
        notice: one whose identifier is not in the inbox.
        last_sequence: the highest sequence number of a notice that was kept.
        now: the device's time.
        notices_wanted: whether the owner agrees to notices.

    Raises:
        NoticeRefusedError: `no_consent`, `replayed` or `expired`.
    """
    if not notices_wanted:
        raise NoticeRefusedError("no_consent", "the owner has not agreed to notices")
    if notice.sequence <= last_sequence:
        what = f"sequence {notice.sequence} is not above {last_sequence}"
        raise NoticeRefusedError("replayed", what)
    if is_over(notice, now=now):
        raise NoticeRefusedError("expired", f"it was to be shown until {notice.expires}")


def is_over(notice: Notice, *, now: datetime) -> bool:
    """Tell whether a notice is not to be shown any more, with the tolerance for wrong clocks."""
    return now > notice.expires + CLOCK_TOLERANCE


def is_of_former_pack(notice: Notice, *, pack_since: datetime | None) -> bool:
    """Tell whether a notice speaks of a battery that has been replaced since.

    Args:
        notice: one that was kept.
        pack_since: since when the pack in use is in the device; None: not known.
    """
    return pack_since is not None and notice.issued < pack_since + LATEST_WORD_ON_A_FORMER_PACK


def end_of(notice: Notice, *, now: datetime, pack_since: datetime | None) -> NoticeState | None:
    """Return the state in which a notice ends that must not be shown, None where it may be.

    One that was kept and is over has failed: its owner was not told, and the server may try again.
    """
    from models.wire.messages import NoticeState

    if is_of_former_pack(notice, pack_since=pack_since):
        return NoticeState.REPLACED
    return NoticeState.FAILED if is_over(notice, now=now) else None
