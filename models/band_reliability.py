"""Is `confidence` what it says: the probability that the failure day lies in the action's band?

Most devices have not failed when the study ends, so the frequency in a bin of rows is not counted
but estimated: S(low) − S(high) with the product-limit estimate of survival (Kaplan and Meier 1958),
which uses what is known of censored rows and guesses nothing. It assumes that censoring tells
nothing of the failure to come, as everywhere in this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .prediction import ACTION_EDGES_DAYS, ACTIONS, HIGH_CONFIDENCE, MEDIUM_CONFIDENCE, Confidence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from .prediction import Action

    Floats = NDArray[np.float64]

BINS_PER_ACTION = 5
LEAST_ROWS_A_BIN = 50
LEAST_ROWS_A_SCALE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Rows of one kind that were told about the same confidence.

    Attributes:
        kind: the action, or the level of confidence.
        mean_confidence: what they were told, 0 to 1.
        frequency: how often the failure day lay in the band, 0 to 1; None where the study ends
            before the band does.
        num_rows: rows in the bin.
    """

    kind: str
    mean_confidence: float
    frequency: float | None
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceReliability:
    """What a study of confidence found.

    Attributes:
        bins: by action, from low to high confidence.
        levels: one bin for each level in words, the most sure first.
        num_rows_unknown: rows of bins whose frequency is not known.
    """

    bins: tuple[ReliabilityBin, ...]
    levels: tuple[ReliabilityBin, ...]
    num_rows_unknown: int

    def expected_calibration_error(self, actions: Iterable[Action] = ACTIONS) -> float | None:
        """Return Σ n_b/n |mean confidence − frequency|, 0 to 1; None where nothing is known.

        Args:
            actions: whose bins count; rare ones disappear among all.
        """
        wanted = {action.value for action in actions}
        gaps, total = 0.0, 0
        for entry in self.bins:
            if entry.kind in wanted and entry.frequency is not None:
                gaps += entry.num_rows * abs(entry.mean_confidence - entry.frequency)
                total += entry.num_rows
        return gaps / total if total else None


def confidence_reliability(
    *,
    confidence: NDArray[np.floating],
    action: NDArray[np.intp],
    duration_days: Floats,
    event_observed: NDArray[np.bool_],
) -> ConfidenceReliability:
    """Compare confidence with what became of the devices.

    Each action's rows are cut into five equally filled bins, so that bands are not mixed.

    Args:
        confidence: shape (n,), what was told.
        action: shape (n,), index into `prediction.ACTIONS`: whose band it speaks of.
        duration_days: shape (n,), from the prediction to the failure or the end of observation.
        event_observed: shape (n,), whether it ends with the failure.
    """
    told = confidence.astype(np.float64)
    bins = []
    for band, name in enumerate(ACTIONS):
        rows = np.flatnonzero(action == band)
        rows = rows[np.argsort(told[rows], kind="stable")]
        count = min(BINS_PER_ACTION, max(len(rows) // LEAST_ROWS_A_BIN, 1))
        for part in np.array_split(rows, count) if len(rows) else ():
            inside = _share_in_band(duration_days[part], event_observed[part], band)
            mean = float(told[part].mean())
            bins.append(
                ReliabilityBin(
                    kind=name.value, mean_confidence=mean, frequency=inside, num_rows=len(part)
                )
            )
    return ConfidenceReliability(
        bins=tuple(bins),
        levels=tuple(_levels(told, action, duration_days, event_observed)),
        num_rows_unknown=sum(entry.num_rows for entry in bins if entry.frequency is None),
    )


def fit_confidence_scales(
    *,
    confidence: NDArray[np.floating],
    action: NDArray[np.intp],
    duration_days: Floats,
    event_observed: NDArray[np.bool_],
) -> tuple[float, ...]:
    """Return a factor for each action by which its confidence comes true.

    Networks are too sure where little was seen. A factor is frequency by mean confidence, at most
    1, so that nothing is ever made surer; it is 1 where fewer than 200 rows tell of it.

    Args:
        confidence: shape (n,), as the model gives it, on devices that it has not seen.
        action: shape (n,), index into `prediction.ACTIONS`: whose band it speaks of.
        duration_days: shape (n,), from the prediction to the failure or the end of observation.
        event_observed: shape (n,), whether it ends with the failure.
    """
    scales = []
    for band in range(len(ACTIONS)):
        rows = np.flatnonzero(action == band)
        share = None
        if len(rows) >= LEAST_ROWS_A_SCALE:
            share = _share_in_band(duration_days[rows], event_observed[rows], band)
        mean = float(confidence[rows].mean()) if share is not None else 1.0
        scales.append(1.0 if share is None else min(share / mean, 1.0))
    return tuple(scales)


def _levels(
    told: Floats,
    action: NDArray[np.intp],
    duration_days: Floats,
    event_observed: NDArray[np.bool_],
) -> list[ReliabilityBin]:
    """Return one bin a level; its frequency is the mean over actions, weighted by rows."""
    level = np.digitize(told, [MEDIUM_CONFIDENCE, HIGH_CONFIDENCE])
    found = []
    for index, name in ((2, Confidence.HIGH), (1, Confidence.MEDIUM), (0, Confidence.LOW)):
        known, inside = [], 0.0
        for band in range(len(ACTIONS)):
            rows = np.flatnonzero((level == index) & (action == band))
            share = _share_in_band(duration_days[rows], event_observed[rows], band)
            if len(rows) and share is not None:
                known.append(rows)
                inside += len(rows) * share
        if known:
            rows = np.concatenate(known)
            found.append(
                ReliabilityBin(
                    kind=name.value,
                    mean_confidence=float(told[rows].mean()),
                    frequency=inside / len(rows),
                    num_rows=len(rows),
                )
            )
    return found


def _share_in_band(
    duration_days: Floats, event_observed: NDArray[np.bool_], band: int
) -> float | None:
    edges = (0.0, *ACTION_EDGES_DAYS, np.inf)
    survival = [survival_at(duration_days, event_observed, edge) for edge in edges[band : band + 2]]
    if survival[0] is None or survival[1] is None:
        return None
    return survival[0] - survival[1]


def survival_at(
    duration_days: Floats, event_observed: NDArray[np.bool_], at_days: float
) -> float | None:
    """Return the product-limit estimate of P(T ≥ at_days).

    Returns:
        0 at infinity; None where nothing was observed for that long and something survived.
    """
    if at_days <= 0:
        return 1.0
    if np.isinf(at_days):
        return 0.0
    durations = np.sort(duration_days)
    times, failures = np.unique(
        duration_days[event_observed & (duration_days < at_days)], return_counts=True
    )
    at_risk = len(durations) - np.searchsorted(durations, times, side="left")
    survival = float(np.prod(1 - failures / at_risk))
    is_covered = survival == 0.0 or bool((duration_days >= at_days).any())
    return survival if is_covered else None
