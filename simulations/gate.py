"""Which bundle devices run: the candidate of the rounds only if it is not worse than the default.

Pure: figures in, decision out. Both models are measured on one simulated reference fleet, so that
the decision spends no device's privacy, and a noisy round never means worse notices, or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.metrics import Quality

SLACK = 0.01
"""Shares that differ by less are not told apart on a reference fleet of some hundred devices."""
_RULES = (
    ("average_precision", "average precision", True),
    ("f1", "F1", True),
    ("ece", "calibration error", False),
)


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate says.

    Attributes:
        passed: whether devices run the candidate.
        why: one plain sentence with figures.
    """

    passed: bool
    why: str


def decide(*, default: Quality, candidate: Quality, slack: float = SLACK) -> GateDecision:
    """Let a candidate pass if no figure of it is worse than the default's by more than the slack.

    The figures are average precision (how it ranks), F1 at the bundle's own threshold (what owners
    get) and expected calibration error (what probabilities mean). A figure that cannot be measured
    lets nothing pass.

    Args:
        default: of the default bundle on the reference fleet.
        candidate: of the candidate on the same windows.
        slack: difference that counts as none.

    Raises:
        ValueError: the two were measured on different windows.
    """
    if (default.num_windows, default.prevalence) != (candidate.num_windows, candidate.prevalence):
        raise ValueError(
            "default and candidate must be measured on the same windows, got "
            f"{default.num_windows} and {candidate.num_windows}"
        )
    shown = []
    for field, name, higher_is_better in _RULES:
        before: float | None = getattr(default, field)
        after: float | None = getattr(candidate, field)
        if before is None or after is None:
            why = f"On the reference fleet its {name} cannot be measured, so it does not pass."
            return GateDecision(passed=False, why=why)
        gain = after - before if higher_is_better else before - after
        if gain < -slack:
            why = (
                f"The candidate of the rounds did not pass: on the reference fleet its {name} is "
                f"{after:.3f}, that of the default bundle {before:.3f}."
            )
            return GateDecision(passed=False, why=why)
        shown.append(f"{name} {after:.3f} (default {before:.3f})")
    why = f"The candidate of the rounds is not worse on the reference fleet: {', '.join(shown)}."
    return GateDecision(passed=True, why=why)
