"""What an agent notes in the store of its own doings, so that its owner and the factory can see it.

Counts are kept in memory and written now and then: a power cut loses the last minutes of them, and
flash memory is spared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from models.prediction import Report

    from ..store.mailbox import Mailbox
    from ..store.sqlite_file import StoreFile
    from .traffic import TrafficMeter

WRITTEN_EVERY_S = 300.0
LAST_PREDICTION = "last_prediction"
REFUSED_MESSAGES = "refused_messages"
CONNECTED_AT = "connected_at"


class DeviceBooks:
    """Writes down predictions, traffic, connections and refusals.

    Args:
        mailbox: of the device.
        meter: of its traffic.
        elapsed_s: now, on a clock that never jumps, seconds.
    """

    def __init__(self, mailbox: Mailbox, meter: TrafficMeter, *, elapsed_s: float) -> None:
        self._mailbox = mailbox
        self._meter = meter
        self._written_s = elapsed_s
        self._refused_before: dict[str, int] = {}
        self._connected_at: datetime | None = None

    def note_report(self, report: Report, *, now: datetime) -> None:
        """Keep what the latest prediction said; it stays on the device."""
        note_report(self._mailbox, report, now=now)

    def note_connected(self, now: datetime) -> None:
        """Remember when the link was connected last."""
        self._connected_at = now

    def write_where_due(self, refused: Mapping[str, int], *, elapsed_s: float) -> None:
        """Write down what came together, at most every five minutes.

        Raises:
            StoreError: nothing was written; the next call tries again.
        """
        if elapsed_s - self._written_s >= WRITTEN_EVERY_S:
            self.write(refused)
            self._written_s = elapsed_s

    def write(self, refused: Mapping[str, int]) -> None:
        """Write down what came together.

        Args:
            refused: messages that were refused since the agent started, by reason.

        Raises:
            StoreError: nothing was written.
        """
        now_refused = dict(refused)
        self._meter.flush(self._mailbox)
        if now_refused == self._refused_before and self._connected_at is None:
            return
        with self._mailbox.transaction():
            if now_refused != self._refused_before:
                kept = dict(self._mailbox.fact(REFUSED_MESSAGES) or {})
                for reason, count in now_refused.items():
                    more = count - self._refused_before.get(reason, 0)
                    kept[reason] = kept.get(reason, 0) + more
                self._mailbox.keep_fact(REFUSED_MESSAGES, kept)
            if self._connected_at is not None:
                moment = self._connected_at.isoformat(timespec="seconds")
                self._mailbox.keep_fact(CONNECTED_AT, moment)
        self._refused_before = now_refused
        self._connected_at = None


def note_report(store: StoreFile, report: Report, *, now: datetime) -> None:
    """Keep what the latest prediction said, for `fedcell-device status`; it stays on the device.

    Raises:
        StoreError: it was not kept.
    """
    said: dict[str, Any] = {
        "at": now.isoformat(timespec="seconds"),
        "status": report.status.value,
        "model_version": report.model_version,
        "urgency": None if report.urgency is None else report.urgency.value,
        "recommended_action": (
            None if report.recommended_action is None else str(report.recommended_action)
        ),
    }
    store.keep_fact(LAST_PREDICTION, said)
