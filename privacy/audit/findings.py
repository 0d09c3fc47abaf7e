"""What an audit finds: one line a check, with the bound that it is held to."""

from dataclasses import dataclass
from enum import StrEnum


class Held(StrEnum):
    """On which side of its bound a value must lie."""

    AT_MOST = "at_most"
    AT_LEAST = "at_least"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """One check of an audit.

    Attributes:
        name: what was looked at.
        value: what was found.
        bound: what it is held to.
        held: on which side of the bound it must lie.
        note: what the figure means, and its unit.
    """

    name: str
    value: float
    bound: float
    held: Held
    note: str

    @property
    def ok(self) -> bool:
        """Whether the value lies on its side; a value that is no number does not."""
        if self.held is Held.AT_MOST:
            return self.value <= self.bound
        return self.value >= self.bound
