"""The hours in which an owner wants no message, in the owner's own time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_SPAN = re.compile(r"(\d{1,2})(?::00)?\s*-\s*(\d{1,2})(?::00)?")
_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A daily span without messages, in whole hours; it may pass midnight.

    Attributes:
        from_hour: local hour at which quiet begins, 0 to 23, inclusive.
        until_hour: local hour at which it ends, 0 to 23, exclusive.
        zone: IANA name of the owner's time zone, such as `Europe/Berlin`.
    """

    from_hour: int
    until_hour: int
    zone: str

    def __post_init__(self) -> None:
        """Refuse hours that are none, and quiet that never ends."""
        for name in ("from_hour", "until_hour"):
            if not 0 <= getattr(self, name) <= 23:
                raise ValueError(f"{name} must be 0 to 23, got {getattr(self, name)}")
        if self.from_hour == self.until_hour:
            raise ValueError(
                f"quiet hours from {self.from_hour} to {self.until_hour} never end;"
                " withdraw the consent to notices instead"
            )

    @staticmethod
    def parse(span: str, zone: str) -> QuietHours:
        """Read a span such as `22-7` or `22:00-07:00`.

        Raises:
            ValueError: the span is not two different whole hours joined by a hyphen.
        """
        found = _SPAN.fullmatch(span.strip())
        if found is None:
            raise ValueError(f"quiet hours must look like 22-7, in whole hours, got {span!r}")
        return QuietHours(int(found[1]), int(found[2]), zone)

    def span(self) -> str:
        """Return the span as `parse` reads it."""
        return f"{self.from_hour}-{self.until_hour}"

    def hold(self, now: datetime) -> bool:
        """Tell whether a message must wait at `now`; an unknown zone holds, it does not send."""
        local = self.local(now)
        if local is None:
            return True
        if self.from_hour < self.until_hour:
            return self.from_hour <= local.hour < self.until_hour
        return local.hour >= self.from_hour or local.hour < self.until_hour

    def end_after(self, now: datetime) -> datetime | None:
        """Return when the quiet that holds at `now` ends, `now` where none holds.

        None for a zone that nobody knows: it ends when the owner names another.
        """
        local = self.local(now)
        if local is None:
            return None
        if not self.hold(now):
            return now
        end = local.replace(hour=self.until_hour, minute=0, second=0, microsecond=0)
        if end <= local:
            end += _ONE_DAY
        return end.astimezone(now.tzinfo)

    def local(self, now: datetime) -> datetime | None:
        """Return `now` on the owner's clock, None for a zone that this machine does not know."""
        from zoneinfo import ZoneInfo

        try:
            return now.astimezone(ZoneInfo(self.zone))
        except (KeyError, ValueError, OSError):
            return None
