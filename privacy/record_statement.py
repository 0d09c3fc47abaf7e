"""What a record-level ε says and what it does not, printed wherever one is printed.

Text and numbers only: it needs no accountant, so that a device can show it.
"""

from dataclasses import dataclass
from typing import Final

RECORD_UNIT: Final = (
    "one training row (one device and day), added or removed where the device has enough rows to "
    "train with and without it"
)
RECORD_IS_NOT: Final = (
    "not a reading: one reading sits in up to 90 rows",
    "not a day of the device's life: the days around it tell of it",
    "not a failure: a failure sets the target of every row of its device",
    "not the hard rule that a device with fewer rows than the policy's least sits out",
    "not the answers to counts: they are noised and composed at device level",
    "not a bound for the device as a whole: that is ε_release, a separate statement",
)
RECORD_ASSUMPTIONS: Final = (
    "each row enters each step independently with the public rate (Poisson sampling)",
    "rate, number of steps and divisor are public and do not depend on the number of rows",
    "noise and coins come from the operating system's entropy; noise is drawn in floating point",
    "all record-level steps of the device's life are composed, of every stream",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStatement:
    """ε_record with all that it means.

    Attributes:
        epsilon: ε_record.
        delta: Its δ.
        unit: What is protected.
        is_not: What is not.
        assumptions: What it rests on.
    """

    epsilon: float
    delta: float
    unit: str = RECORD_UNIT
    is_not: tuple[str, ...] = RECORD_IS_NOT
    assumptions: tuple[str, ...] = RECORD_ASSUMPTIONS

    def to_text(self) -> str:
        """Return the statement in lines, the figure first."""
        return "\n".join(
            [
                f"ε_record = {self.epsilon:.3g} at δ = {self.delta:g}",
                f"protects: {self.unit}",
                *self.is_not,
                *(f"assumes: {line}" for line in self.assumptions),
            ]
        )
