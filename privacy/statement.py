"""What a device-level ε says and rests on, written once for everybody who prints one.

Text only: it needs no accountant, so that a device can show it. The second, weaker statement on
training rows is `privacy.record_statement`.
"""

from dataclasses import dataclass
from typing import Final

DEVICE_UNIT: Final = "one device, its whole life, over every release made from its data"
HOME_UNIT: Final = (
    "one device, its whole life: all that it sends in the releases that this privacy home's ledger "
    "holds; what is kept in another home is not covered"
)
NEIGHBORING_RELATION: Final = (
    "one device's contributions replaced by zero; the number of invited devices is public"
)
TRUSTED_AGGREGATOR: Final = (
    "the aggregator is trusted to add the noise, and to keep the stream's key and sums to itself"
)
PUBLIC_INVITATIONS: Final = (
    "invitations depend on stable identifiers, the public schedule and history alone"
)
NO_AMPLIFICATION: Final = "no amplification by sampling is assumed"
SERVER_UNBOUNDED: Final = (
    "against the server's operator ε_server is unbounded until secure aggregation exists"
)
CORRELATED: Final = (
    "noise is correlated over the steps of a stream (banded factor), each of which is released",
    "releases are integers on a grid; the noise is drawn in floating point and rounded to it",
)
INDEPENDENT: Final = ("noise is independent between releases and drawn in floating point",)

REACHABILITY: Final = (
    "whether a device answers at all does not depend on its data: a step to which fewer answered "
    "than the policy's least is noise alone, and is marked so"
)
REACHED_AT_START: Final = (
    "who is enrolled is who could be reached when a stream began, for no record said it: that did "
    "not depend on any device's data"
)
OWNERS_UNKNOWN: Final = (
    "who owns which device is not known: what several devices of one owner give adds up, and their "
    "number is not bounded"
)
SAID_MORE: Final = (
    "devices say that they have spent more than the ledger holds, in other homes or in releases it "
    "has lost: the figure is theirs"
)
ADAPTIVE: Final = (
    "the clipping norm follows a noised sum of one bit from each device, whose cost is in the "
    "figure; each step has one norm, and neither bits nor updates are seen without noise"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyStatement:
    """What stands beside every device-level ε.

    Attributes:
        unit: What is protected.
        assumptions: What the figure rests on.
        neighboring_relation: Between which two worlds nobody can tell.
    """

    unit: str
    assumptions: tuple[str, ...]
    neighboring_relation: str = NEIGHBORING_RELATION

    def and_assumes(self, *more: str) -> "PrivacyStatement":
        """The statement with further assumptions."""
        return PrivacyStatement(
            unit=self.unit,
            assumptions=self.assumptions + more,
            neighboring_relation=self.neighboring_relation,
        )

    def to_json(self) -> dict[str, object]:
        """Return the statement as fields that stand beside an ε."""
        return {
            "unit_of_privacy": self.unit,
            "neighboring_relation": self.neighboring_relation,
            "assumptions": list(self.assumptions),
        }

    def to_lines(self) -> tuple[str, ...]:
        """Return the statement in lines for a person."""
        return (
            f"unit of privacy: {self.unit}",
            f"neighbours: {self.neighboring_relation}",
            *(f"assumes: {line}" for line in self.assumptions),
        )

    def to_line(self) -> str:
        """Return the unit and the relation in one line, where there is room for no more."""
        return f"per {self.unit}; {self.neighboring_relation}"


OF_RELEASES: Final = PrivacyStatement(
    unit=HOME_UNIT, assumptions=(TRUSTED_AGGREGATOR, PUBLIC_INVITATIONS, NO_AMPLIFICATION)
)
"""Of what a privacy home has released."""

OF_PLAN: Final = PrivacyStatement(
    unit=DEVICE_UNIT,
    assumptions=(
        TRUSTED_AGGREGATOR,
        SERVER_UNBOUNDED,
        PUBLIC_INVITATIONS,
        f"{NO_AMPLIFICATION}; any order of rounds that keeps k and b is covered",
        "a device that never trains answers metrics alone, any other the other counts alone",
    ),
)
"""Of what a plan will release."""

OF_DEVICE: Final = PrivacyStatement(
    unit=DEVICE_UNIT,
    assumptions=(
        "the server adds the noise that its signed policy prescribes, and looks at no one update",
        "rounds of one device lie at least the policy's separation apart: this device enforces it",
        NO_AMPLIFICATION,
        "every participation is charged in full, also where its round was aborted",
        "real-valued noise; summaries and notices are outside",
    ),
)
"""Of what a device's own ledger holds."""
