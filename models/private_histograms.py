"""One device's answer to a count: zeros, but for a 1 in each bin that it falls into.

Pure: from what the device knows of one moment to whole numbers of the question's public shape. A
device looks at a single moment a release, so its answer has a bounded norm by construction: 1 for
an evaluation and for similar devices, √m for a drift over m values.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .feature_spec import FEATURES
from .prediction import HORIZON_DAYS
from .wire.counts import PROBABILITY, Bins, CountKind, CountQuestion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SIMILAR_HORIZON_DAYS: Final = 60
CONFIRMATION_DAYS: Final = 15
"""Days after a failure until the rules of `models.labels` surely know of it, with some days' gap in
the readings."""

SCORE_EDGES: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.75)
"""Bins of the 30-day probability: narrow where failures are, few in all, for each carries noise."""
HEALTH_EDGES: Final = (0.7, 0.8, 0.9)
PACE_EDGES: Final = (-0.1, -0.02)
"""Growth of the health margin in 30 days: below −0.1 it fades fast, from −0.02 on hardly."""
DRIFT_FEATURES: Final = (
    "health_margin",
    "capacity_slope_30d",
    "charge_time_ratio",
    "resistance_ratio",
    "battery_temp_avg",
    "unexpected_shutdowns",
    "usage_intensity",
    "cycles_per_day",
)
"""One feature of each explanation group but age, and a second of usage: noise grows with the root
of their number."""
DRIFT_BINS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMoment:
    """What a device knows of itself at the moment that a question asks about.

    Attributes:
        values: features by name, and the model's probability as `PROBABILITY`; NaN = missing.
        failed_within: whether the pack failed within the horizon; None where that is not known.
    """

    values: Mapping[str, float]
    failed_within: bool | None = None


def evaluation_question(
    *, as_of_s: int, model_version: str, threshold: float | None = None
) -> CountQuestion:
    """Ask how the model's probability fits what happened in the 30 days after a moment.

    Args:
        as_of_s: a UTC midnight, at least 30 days and `CONFIRMATION_DAYS` ago.
        model_version: the model.
        threshold: from which it flags, which becomes an edge, so that rates are counted exactly.
    """
    edges = set(SCORE_EDGES)
    if threshold is not None and 0.0 < threshold < 1.0:
        nearest = min(edges, key=lambda edge: abs(math.log(edge / threshold)))
        edges = (edges - {nearest}) | {threshold}
    return CountQuestion(
        kind=CountKind.EVALUATION,
        as_of_s=as_of_s,
        horizon_days=HORIZON_DAYS,
        model_version=model_version,
        bins=(Bins(PROBABILITY, tuple(sorted(edges))),),
    )


def similar_devices_question(*, as_of_s: int) -> CountQuestion:
    """Ask which devices, alike in health and pace of fading, failed within 60 days.

    Args:
        as_of_s: a UTC midnight, at least 60 days and `CONFIRMATION_DAYS` ago.
    """
    return CountQuestion(
        kind=CountKind.SIMILAR_DEVICES,
        as_of_s=as_of_s,
        horizon_days=SIMILAR_HORIZON_DAYS,
        bins=(
            Bins("charge_capacity_remaining", HEALTH_EDGES),
            Bins("capacity_slope_30d", PACE_EDGES),
        ),
    )


def drift_question(
    reference: NDArray[np.floating],
    *,
    as_of_s: int,
    names: Sequence[str] = DRIFT_FEATURES,
    num_bins: int = DRIFT_BINS,
) -> CountQuestion:
    """Ask how features are spread now, in bins that public reference rows fill evenly.

    Args:
        reference: float, shape (n, n_features), rows of simulated or public devices.
        as_of_s: a UTC midnight.
        names: of the features that are watched.
        num_bins: of each, beside the one for missing values.

    Raises:
        ValueError: the reference does not tell two bins of a feature apart.
    """
    all_names = [feature.name for feature in FEATURES]
    bins = []
    for name in names:
        inner = _even_edges(reference[:, all_names.index(name)].astype(np.float64), num_bins)
        if not inner:
            raise ValueError(f"the reference rows hold no two values of {name} to tell apart")
        bins.append(Bins(name, tuple(inner)))
    return CountQuestion(kind=CountKind.DRIFT, as_of_s=as_of_s, bins=tuple(bins))


def spread_of(question: CountQuestion, rows: NDArray[np.floating]) -> dict[str, list[float]]:
    """Return what share of public rows lies in each bin of a drift question, missing last.

    Args:
        question: of drift.
        rows: float, shape (n, n_features), at least one.
    """
    all_names = [feature.name for feature in FEATURES]
    found = {}
    for one in question.bins:
        column = rows[:, all_names.index(one.name)].astype(np.float64)
        place = np.searchsorted(one.edges, column, side="right")
        place = np.where(np.isnan(column), one.size, place)
        found[one.name] = (np.bincount(place, minlength=one.size + 1) / len(column)).tolist()
    return found


def _even_edges(column: NDArray[np.float64], num_bins: int) -> list[float]:
    """Quantiles of a column; where most values are its least, the next one splits it."""
    known = column[np.isfinite(column)]
    above = known[known > known.min(initial=np.inf)]
    if len(above) == 0:
        return []
    edges = np.unique(np.quantile(known, np.arange(1, num_bins) / num_bins))
    inner = [float(edge) for edge in edges if edge > known.min()]
    return inner or [float(above.min())]


def count_vector(question: CountQuestion, moment: DeviceMoment | None) -> NDArray[np.int64]:
    """Return one device's answer.

    Layout. Evaluation and similar devices: the cells of those that did not fail, then the cells of
    those that failed; a cell is the bins' numbers read as digits, the first bin's the highest.
    Drift: the bins of each value one after the other, the last of each for missing.

    Args:
        question: fixes shape and bins.
        moment: what the device knows; None answers zeros.

    Returns:
        int64, shape (question.size,), of 0 and 1, with at most `question.sensitivity_squared` ones.
    """
    vector = np.zeros(question.size, np.int64)
    if moment is None:
        return vector
    if question.kind is CountKind.DRIFT:
        first = 0
        for one in question.bins:
            place = _bin_of(one, moment.values)
            vector[first + (one.size if place is None else place)] = 1
            first += one.size + 1
        return vector
    cell = cell_of(question, moment.values)
    if cell is None or moment.failed_within is None:
        return vector
    vector[cell + (question.size // 2 if moment.failed_within else 0)] = 1
    return vector


def cell_of(question: CountQuestion, values: Mapping[str, float]) -> int | None:
    """Return the cell of an evaluation or of similar devices that values fall into.

    A device finds devices like itself by it in counts that come down.

    Args:
        question: fixes the bins.
        values: by name; NaN = missing.

    Returns:
        Number of the cell, or None where a value is missing.
    """
    cell = 0
    for one in question.bins:
        place = _bin_of(one, values)
        if place is None:
            return None
        cell = cell * one.size + place
    return cell


def _bin_of(bins: Bins, values: Mapping[str, float]) -> int | None:
    value = values.get(bins.name, math.nan)
    return None if math.isnan(value) else bisect_right(bins.edges, value)
