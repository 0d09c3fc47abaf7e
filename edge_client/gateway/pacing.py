"""Whom a gateway asks when: offers in waves, missing parts again, silent devices once more.

No IO. A broker keeps a few hundred messages for a receiver that is behind, and drops the rest
without a word. So no more devices are asked at once than fit its queue, a device that keeps silent
gives its place to the next after a while, and what is missing is asked for anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection as Some
    from collections.abc import Mapping, Sequence

    from .collecting import Heard

PARTS_AT_ONCE: Final = 320
"""Parts that may be on their way to the gateway at once."""
LONGEST_PLACE_S: Final = 10.0
"""How long a silent device keeps others from being asked, at most."""
SHARE_OF_OFFERS: Final = 0.25
"""Share of a step's time within which every device is asked, whatever the others do."""
STALLED_S: Final = 2.0
"""Silence after a part, after which the missing ones are asked for; doubles with each time."""
REMINDERS: Final = (0.4, 0.7)
"""Shares of a step's time at which devices that were silent are offered it once more."""


@dataclass(slots=True)
class _Asked:
    last_s: float
    times: int = 0
    missing_s: float = 0.0


@dataclass(slots=True)
class Pace:
    """Decides whom to ask.

    Attributes:
        begun_s: when the step began, on a clock that never jumps.
        budget_s: seconds that it has.
        at_once: devices that are asked at once.
    """

    devices: Sequence[str]
    begun_s: float
    budget_s: float
    num_parts: int
    _waiting: deque[str] = field(init=False)
    _asked: dict[str, _Asked] = field(init=False, default_factory=dict)
    _reminded: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Have every device wait for its offer."""
        self._waiting = deque(self.devices)

    @property
    def at_once(self) -> int:
        """Devices whose answers may be on their way at once."""
        return max(1, PARTS_AT_ONCE // self.num_parts)

    @property
    def place_s(self) -> float:
        """For how long a silent device holds its place."""
        waves = -(-len(self.devices) // self.at_once)
        return min(LONGEST_PLACE_S, SHARE_OF_OFFERS * self.budget_s / max(waves, 1))

    def begin_again(self) -> None:
        """Have all be offered the step once more: a broker has forgotten what it was told."""
        self._waiting = deque(self.devices)
        self._asked.clear()

    def offers(self, now_s: float, *, answered: Some[str], heard: Mapping[str, Heard]) -> list[str]:
        """Return the devices to offer the step now.

        Args:
            now_s: the present.
            answered: devices that are done.
            heard: of those that began.
        """
        self._remind(now_s, answered=answered, heard=heard)
        recent = sum(
            now_s - max(asked.last_s, heard[device].last_s if device in heard else 0.0)
            < self.place_s
            for device, asked in self._asked.items()
            if device not in answered
        )
        chosen: list[str] = []
        while self._waiting and recent + len(chosen) < self.at_once:
            device = self._waiting.popleft()
            if device in answered:
                continue
            chosen.append(device)
            self._asked[device] = _Asked(now_s)
        return chosen

    def missing(
        self, now_s: float, *, answered: Some[str], heard: Mapping[str, Heard]
    ) -> list[tuple[str, tuple[int, ...]]]:
        """Return devices whose answer came in part, and what of it to ask for again."""
        asked: list[tuple[str, tuple[int, ...]]] = []
        for device, one in heard.items():
            known = self._asked.setdefault(device, _Asked(now_s))
            wait_s = STALLED_S * 2**known.times
            if device in answered or now_s - max(one.last_s, known.missing_s) < wait_s:
                continue
            if len(asked) * self.num_parts >= PARTS_AT_ONCE:
                break
            known.times += 1
            known.missing_s = now_s
            # None names them all.
            everything = len(one.missing) == one.num_parts
            asked.append((device, () if everything else one.missing))
        return asked

    def _remind(self, now_s: float, *, answered: Some[str], heard: Mapping[str, Heard]) -> None:
        due = sum(now_s - self.begun_s >= share * self.budget_s for share in REMINDERS)
        if due <= self._reminded:
            return
        self._reminded = due
        waiting = set(self._waiting)
        silent = (
            device
            for device in self._asked
            if device not in answered and device not in heard and device not in waiting
        )
        self._waiting.extend(silent)
