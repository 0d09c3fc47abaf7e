"""Which notices are believed, kept, and still true when they are shown. No IO, no clock."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ..errors import NoticeRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from models.wire.envelope import VerifyKey
    from models.wire.messages import Message, Notice, NoticeState
    from models.wire.sealing import OpeningKey

CLOCK_TOLERANCE = timedelta(days=1)
LATEST_WORD_ON_A_FORMER_PACK = timedelta(days=7)
"""A server may still speak of a pack so long after it was taken out: it goes by summaries that are
up to three days old. Of a new pack it knows nothing for 28 days."""


def open_payload(
    message: bytes,
    *,
    topic: str,
    trusted: Mapping[str, VerifyKey],
    opening_key: OpeningKey | None = None,
) -> bytes:
    """Return the payload of a genuine message: signed by the server, and sealed to us or not.

    Args:
        message: what came over the wire.
        topic: on which it came.
        trusted: the server's keys, by key id.
        opening_key: the device's own; None where it has no identity.

    Raises:
        models.wire.errors.WireError: it cannot be opened, or the signature does not hold.
    """
    from models.wire.sealing import open_message

    return open_message(message, topic=topic, trusted=trusted, opening_key=opening_key)


def require_meant_for(message: Message, device_id: str) -> None:
    """Refuse a genuine message to another device.

    Raises:
        NoticeRefusedError: `foreign_device`.
    """
    if message.device != device_id:
        raise NoticeRefusedError("foreign_device", f"it is meant for {message.device}")


def open_notice(
    message: bytes,
    *,
    topic: str,
    device_id: str,
    trusted: Mapping[str, VerifyKey],
    opening_key: OpeningKey | None = None,
) -> Notice:
    """Return the notice in a genuine message to this device.

    Args:
        message: what came over the wire.
        topic: on which it came.
        device_id: of this device.
        trusted: the server's keys, by key id.
        opening_key: the device's own; None where it has no identity.

    Raises:
        models.wire.errors.WireError: it is not genuine, or no notice.
        NoticeRefusedError: it is meant for another device.
    """
    from models.wire.codec import decode
    from models.wire.messages import Notice

    payload = open_payload(message, topic=topic, trusted=trusted, opening_key=opening_key)
    notice = decode(payload, Notice)
    require_meant_for(notice, device_id)
    return notice


def require_admissible(
    notice: Notice,
    *,
    last_sequence: int,
    now: datetime,
    notices_wanted: bool,
    is_stopped: bool = False,
) -> None:
    """Refuse a genuine notice that must not be shown.

    The sequence number is the authority against replay; the time comes second, with a tolerance,
    because device clocks are wrong.

    Args:
        notice: one whose identifier is not in the inbox.
        last_sequence: the highest sequence number of a notice that was kept.
        now: the device's time.
        notices_wanted: whether the owner agrees to notices.
        is_stopped: whether the server's configuration has stopped them.

    Raises:
        NoticeRefusedError: `no_consent`, `stopped`, `replayed` or `expired`.
    """
    if not notices_wanted:
        raise NoticeRefusedError("no_consent", "the owner has not agreed to notices")
    if is_stopped:
        raise NoticeRefusedError("stopped", "the server's configuration has stopped notices")
    if notice.sequence <= last_sequence:
        what = f"sequence {notice.sequence} is not above {last_sequence}"
        raise NoticeRefusedError("replayed", what)
    if is_over(notice, now=now):
        raise NoticeRefusedError("expired", f"it was to be shown until {notice.expires}")


def is_over(notice: Notice, *, now: datetime) -> bool:
    """Tell whether a notice is not to be shown any more, with the tolerance for wrong clocks."""
    return not within_time(notice.expires, now=now)


def within_time(expires: datetime, *, now: datetime) -> bool:
    """Tell whether a message may still be taken, with the tolerance for wrong clocks."""
    return now - CLOCK_TOLERANCE <= expires


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
