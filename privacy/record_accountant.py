"""Record-level accounting of DP-SGD on a device: dp-accounting's privacy loss distributions.

What ε_record protects is one training row (one device and day), added or removed. It is not a
reading, a day or a failure: a failure sets the target of every row of its device, and a reading
sits in up to 90 rows. Devices with fewer than the least rows (180) sit out, a hard rule that looks
at the data: the statement holds for neighbours that both have enough. It is a second, weaker
statement beside ε_release, never merged with it.

The mechanism is the Poisson-sampled Gaussian with a public rate and step count. The distribution is
rounded to the pessimistic side, so the figure is an upper bound (Doroshenko et al. 2022, "Connect
the dots"). Opacus' `prv` (Gopi et al. 2021) is a second check in the tests. Its `gdp` is refused by
name: a limit theorem, no upper bound for sampled steps (1.40 where the truth is 1.74).
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Self

import dp_accounting
from dp_accounting.pld import PLDAccountant

from .errors import UnsupportedEventError
from .events import CountAnswer, Event, Participation, RecordLevelSteps
from .record_statement import RecordStatement

GREATEST_DELTA: Final = 1e-3
"""Above it a guarantee could be met by publishing a few whole rows."""


class RecordAccountant:
    """One accountant for the life of a device; it only ever adds.

    Args:
        events: The record-level steps of the device's ledger so far.
        mechanism: How loss is composed; `pld`, and nothing else.

    Raises:
        UnsupportedEventError: An event is no record-level step.
        ValueError: The mechanism is no upper bound, or is not known.
    """

    def __init__(self, events: Iterable[Event] = (), *, mechanism: str = "pld") -> None:
        if mechanism == "gdp":
            raise ValueError(
                "mechanism must be pld, got 'gdp': it is no upper bound for Poisson-sampled steps"
            )
        if mechanism != "pld":
            raise ValueError(f"mechanism must be pld, got {mechanism!r}")
        self._steps: Counter[tuple[float, float]] = Counter()
        for event in events:
            self.add(event)

    @classmethod
    def of_ledger(cls, events: Iterable[Event]) -> Self:
        """Charge all record-level steps of a device's ledger, whatever stream they were for.

        Participations and counts are charged at device level and are passed over here.

        Args:
            events: Of the device's whole ledger.

        Raises:
            UnsupportedEventError: An event has no place in a device's ledger.
        """
        return cls(event for event in events if not isinstance(event, Participation | CountAnswer))

    def add(self, event: Event) -> None:
        """Charge steps of DP-SGD.

        Raises:
            UnsupportedEventError: The event is no record-level step.
        """
        if not isinstance(event, RecordLevelSteps):
            raise UnsupportedEventError(type(event).__name__)
        self._steps[event.noise_multiplier, event.sampling_rate] += event.steps

    def epsilon(self, *, delta: float) -> float:
        """ε_record of everything charged so far.

        Args:
            delta: δ_record, in (0, 1e-3].

        Returns:
            An upper bound on ε for one training row, added or removed.

        Raises:
            ValueError: δ is out of bounds.
        """
        if not 0.0 < delta <= GREATEST_DELTA:
            raise ValueError(f"delta must lie in (0, {GREATEST_DELTA:g}], got {delta}")
        return _epsilon_of(tuple(sorted(self._steps.items())), delta)

    def statement(self, *, delta: float) -> RecordStatement:
        """ε_record with its δ, its unit, what it is not and what it assumes.

        Raises:
            ValueError: δ is out of bounds.
        """
        return RecordStatement(epsilon=self.epsilon(delta=delta), delta=delta)


@lru_cache(maxsize=256)
def _epsilon_of(steps: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    """ε of ((noise multiplier, sampling rate), steps); about a second of CPU, so kept."""
    accountant = PLDAccountant()
    for (noise_multiplier, sampling_rate), count in steps:
        gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(sampling_rate, gaussian), count)
    return float(accountant.get_epsilon(delta))
