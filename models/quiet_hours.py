"""The hours in which an owner wants no message, in the owner's own time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo

_SPAN = re.compile(r"(\d{1,2})(?::00)?\s*-\s*(\d{1,2})(?::00)?")
_SECONDS_PER_HOUR = 3600


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
        zone = known_zone(self.zone)
        return zone is None or self._cover(now.astimezone(zone))

    def end(self, now: datetime) -> datetime | None:
        """Return when the quiet that holds at `now` ends (UTC), None where none holds.

        Walks over the owner's wall clock from full hour to full hour, so that days on which clocks
        change need no case of their own.

        Raises:
            ValueError: this machine does not know the zone.
        """
        zone = known_zone(self.zone)
        if zone is None:
            raise ValueError(f"zone must be one that this machine knows, got {self.zone!r}")
        moment = now.astimezone(UTC)
        while self._cover(local := moment.astimezone(zone)):
            into_the_hour = local.minute * 60 + local.second
            moment = moment.replace(microsecond=0) + timedelta(
                seconds=_SECONDS_PER_HOUR - into_the_hour
            )
        return None if moment == now else moment

    def _cover(self, local: datetime) -> bool:
        if self.from_hour < self.until_hour:
            return self.from_hour <= local.hour < self.until_hour
        return local.hour >= self.from_hour or local.hour < self.until_hour


def known_zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its IANA name, None where this machine does not know it."""
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
