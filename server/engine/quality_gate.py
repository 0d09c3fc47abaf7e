"""Whether a candidate may be proposed for release: only if it is not worse than the model in use.

Pure: figures in, decision out. Both models are measured on the same windows of datasets that are no
device's of the fleet (a simulated reference fleet, public cells), so that the decision spends no
device's privacy. Private figures from devices are too weak to decide: they veto, and only where the
interval of the difference excludes equality.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.metrics import Quality

SLACK: Final = 0.01
"""Shares that differ by less are not told apart on a reference fleet of some hundred devices."""
REFERENCE: Final = "the reference fleet"
CELLS: Final = "public cells"

_AVERAGE_PRECISION: Final = ("average_precision", "average precision", True)
_F1: Final = ("f1", "F1", True)
_CALIBRATION: Final = ("ece", "calibration error", False)
_RULES: Final = {
    REFERENCE: (_AVERAGE_PRECISION, _F1, _CALIBRATION),
    # Cells are cycled in laboratories: what probabilities mean there says nothing of a fleet.
    CELLS: (_AVERAGE_PRECISION, _F1),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """Both models on the same windows of one dataset.

    Attributes:
        dataset: `REFERENCE` or `CELLS`.
        current: figures of the model in use.
        candidate: figures of the candidate.
    """

    dataset: str
    current: Quality
    candidate: Quality

    def __post_init__(self) -> None:
        """Refuse figures that cannot be compared."""
        if self.dataset not in _RULES:
            raise ValueError(f"dataset must be one of {', '.join(_RULES)}, got {self.dataset!r}")
        ours, theirs = self.current, self.candidate
        if (ours.num_windows, ours.prevalence) != (theirs.num_windows, theirs.prevalence):
            raise ValueError(
                f"both models must be measured on the same windows of {self.dataset}, got "
                f"{ours.num_windows} and {theirs.num_windows}"
            )


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of both models.

    Attributes:
        dataset: where it was measured.
        figure: its name.
        current: of the model in use; None where it cannot be measured.
        candidate: likewise.
        ok: whether the candidate is not worse by more than the slack.
    """

    dataset: str
    figure: str
    current: float | None
    candidate: float | None
    ok: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """How much of a dataset spoke.

    Attributes:
        dataset: its name.
        windows: that were judged.
        failures: of them, that ended in a failure.
    """

    dataset: str
    windows: int
    failures: int

    @staticmethod
    def of(one: Judged) -> Measured:
        """Return how much was measured on one dataset: the same of both models."""
        windows, share = one.candidate.num_windows, one.candidate.prevalence
        return Measured(one.dataset, windows, round((share or 0.0) * windows))


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate says.

    Attributes:
        passed: whether the candidate may be proposed.
        why: plain sentences with figures.
        checks: every figure that was looked at.
        vetoes: private figures in which the candidate is worse beyond doubt.
        measured: how much of each dataset spoke.
    """

    passed: bool
    why: str
    checks: tuple[Check, ...] = ()
    vetoes: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the decision as a JSON object."""
        return {"schema_version": 1, **asdict(self)}


def decide(
    judged: Sequence[Judged], *, vetoes: Sequence[str] = (), slack: float = SLACK
) -> GateDecision:
    """Let a candidate pass if no figure on any dataset is worse by more than the slack.

    The figures are average precision (how it ranks), F1 at the bundle's own threshold (what owners
    get) and, on the reference fleet, expected calibration error (what probabilities mean). A figure
    that cannot be measured of the candidate lets nothing pass; nor does a missing reference fleet.

    Args:
        judged: on each dataset; the reference fleet must be among them.
        vetoes: private figures, as `server.counts.private_metrics.vetoes` gives them.
        slack: difference that counts as none.

    Raises:
        ValueError: the reference fleet is missing.
    """
    if REFERENCE not in {one.dataset for one in judged}:
        raise ValueError(f"{REFERENCE} must be among the datasets that decide")
    checks = tuple(
        _check(one, field, is_higher_better=is_higher_better, slack=slack)
        for one in judged
        for field, _, is_higher_better in _RULES[one.dataset]
    )
    failed = [check for check in checks if not check.ok]
    if failed:
        why = _why_not(failed[0])
    elif vetoes:
        names = ", ".join(name.replace("_", " ") for name in vetoes)
        why = f"Devices' private figures are worse beyond doubt in {names}, so it does not pass."
    else:
        why = f"The candidate of the rounds is not worse {_shown(checks)}."
    measured = tuple(map(Measured.of, judged))
    return GateDecision(not failed and not vetoes, why, checks, tuple(vetoes), measured)


def _check(one: Judged, field: str, *, is_higher_better: bool, slack: float) -> Check:
    before: float | None = getattr(one.current, field)
    after: float | None = getattr(one.candidate, field)
    is_ok = False
    if before is not None and after is not None:
        gain = after - before if is_higher_better else before - after
        is_ok = gain >= -slack
    return Check(one.dataset, field, before, after, is_ok)


_WORDS: Final[Mapping[str, str]] = {
    field: words for field, words, _ in (_AVERAGE_PRECISION, _F1, _CALIBRATION)
}


def _why_not(check: Check) -> str:
    name = _WORDS[check.figure]
    if check.current is None or check.candidate is None:
        return f"On {check.dataset} its {name} cannot be measured, so it does not pass."
    return (
        f"The candidate of the rounds did not pass: on {check.dataset} its {name} is "
        f"{check.candidate:.3f}, that of the model in use {check.current:.3f}."
    )


def _shown(checks: Sequence[Check]) -> str:
    parts = []
    for dataset in dict.fromkeys(check.dataset for check in checks):
        figures = ", ".join(
            f"{_WORDS[check.figure]} {check.candidate:.3f} (in use {check.current:.3f})"
            for check in checks
            if check.dataset == dataset
        )
        parts.append(f"on {dataset}: {figures}")
    return "; ".join(parts)
