"""The hours in which an owner wants no message, in the owner's own time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta

_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A daily span without messages; it may pass midnight.

    Attributes:
        start: local time at which quiet begins, inclusive.
        end: local time at which it ends, exclusive; equal to `start` means the whole day.
        zone: IANA name of the owner's time zone, such as `Europe/Berlin`.
    """

    start: time
    end: time
    zone: str

    @staticmethod
    def parse(span: str, zone: str) -> QuietHours:
        """Read a span such as `22:00-07:00`.

        Raises:
            ValueError: the span is not two times of day joined by a hyphen.
        """
        first, _, last = span.partition("-")
        try:
            start, end = time.fromisoformat(first.strip()), time.fromisoformat(last.strip())
        except ValueError:
            raise ValueError(f"quiet hours must look like 22:00-07:00, got {span!r}") from None
        return QuietHours(start, end, zone)

    def span(self) -> str:
        """Return the span as `parse` reads it."""
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def hold(self, now: datetime) -> bool:
        """Tell whether a message must wait at `now`; an unknown zone holds, it does not send."""
        local = self._local(now)
        if local is None:
            return True
        clock = local.time()
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def end_after(self, now: datetime) -> datetime | None:
        """Return when the quiet that holds at `now` ends; None for a zone nobody knows.

        A span that covers the whole day ends a day later, so that it is asked again.
        """
        local = self._local(now)
        if local is None:
            return None
        if not self.hold(now):
            return now
        end = local.replace(hour=self.end.hour, minute=self.end.minute, second=0, microsecond=0)
        if end <= local:
            end += _ONE_DAY
        return end.astimezone(now.tzinfo)

    def _local(self, now: datetime) -> datetime | None:
        from zoneinfo import ZoneInfo

        try:
            return now.astimezone(ZoneInfo(self.zone))
        except (KeyError, ValueError, OSError):
            return None
