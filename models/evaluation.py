"""Judging a predictions table against what became of the devices, beside simple rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DatasetError
from .feature_spec import FEATURE_NAMES
from .metrics import Quality, Windows, quality, windows
from .parquet_tables import rows_of
from .prediction import HORIZON_DAYS, MAX_DAYS, Status
from .telemetry import SECONDS_PER_DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .telemetry import Outcomes

CAPACITY_RULE_MARGIN = 0.1
"""The capacity rule flags below 10 % of the health margin."""


@dataclass(frozen=True, slots=True)
class EvaluatedRows:
    """The rows of a predictions table that can be judged.

    Attributes:
        rows: int, their positions in the table.
        windows: what is known of each one's future.
    """

    rows: NDArray[np.intp]
    windows: Windows

    def take(self, chosen: NDArray[np.bool_]) -> EvaluatedRows:
        """Return some of the rows; `chosen` has one entry for each."""
        return EvaluatedRows(self.rows[chosen], self.windows.take(chosen))


def evaluated_rows(
    table: dict[str, NDArray[Any]], outcomes: Outcomes, where: object
) -> EvaluatedRows:
    """Pick the rows with status ok and join them with the outcomes.

    Raises:
        DatasetError: when the table speaks of a device without an outcome, or holds no ok row.
    """
    rows = np.flatnonzero(table["status"] == str(Status.OK))
    if len(rows) == 0:
        raise DatasetError(where, "holds no row with status ok", "predict a longer history")
    device = rows_of(outcomes.device_ids, table["device_id"][rows])
    if (device < 0).any():
        stranger = table["device_id"][rows][int(np.argmin(device))]
        remedy = "evaluate predictions with the fleet they were made from"
        raise DatasetError(where, f"device {stranger!r} has no outcome", remedy)
    known = device_windows(device, table["as_of"][rows], outcomes)
    return EvaluatedRows(rows, known)


def device_windows(
    device: NDArray[np.intp], as_of_s: NDArray[np.number], outcomes: Outcomes
) -> Windows:
    """Return what is known of the 30 days after each row."""
    return windows(
        device,
        np.asarray(as_of_s, dtype=np.float64) / SECONDS_PER_DAY,
        failed_at_days=outcomes.failed_at_s / SECONDS_PER_DAY,
        observed_until_days=outcomes.observed_until_s / SECONDS_PER_DAY,
        horizon_days=HORIZON_DAYS,
    )


def evaluate_predictions(
    table: dict[str, NDArray[Any]], outcomes: Outcomes, *, where: object
) -> Quality:
    """Measure the model behind a predictions table.

    Raises:
        DatasetError: as `evaluated_rows`.
    """
    return quality_of_rows(table, evaluated_rows(table, outcomes, where))


def quality_of_rows(table: dict[str, NDArray[Any]], judged: EvaluatedRows) -> Quality:
    """Measure the model behind a predictions table, on some of its rows."""
    pick = {name: table[name][judged.rows] for name in table}
    return quality(
        judged.windows,
        probability=pick["failure_probability_30d"],
        days_p10=pick["days_to_failure_p10"],
        days_p50=pick["days_to_failure_p50"],
        days_p90=pick["days_to_failure_p90"],
        flagged=pick["flagged"].astype(bool),
    )


def rule_baselines(features: NDArray[np.float32], known: Windows) -> dict[str, Quality]:
    """Measure A7's baselines that need no training.

    do_nothing never flags; capacity_rule flags below 10 % of the health margin;
    linear_extrapolation flags where the 30-day line reaches end of life within 30 days.

    Args:
        features: float32, shape (n, n_features), of the same rows as `known`.
        known: what is known of each row's future.
    """
    margin = _column(features, "health_margin", missing=1.0)
    crossing = _column(features, "days_to_eol_linear_30d", missing=MAX_DAYS)
    never = np.zeros(len(features))
    return {
        "do_nothing": quality(known, probability=never, flagged=never.astype(bool)),
        "capacity_rule": quality(
            known, probability=-margin, flagged=margin <= CAPACITY_RULE_MARGIN
        ),
        "linear_extrapolation": quality(
            known, probability=-crossing, days_p50=crossing, flagged=crossing <= HORIZON_DAYS
        ),
    }


def _column(features: NDArray[np.float32], name: str, *, missing: float) -> NDArray[np.float64]:
    values = features[:, FEATURE_NAMES.index(name)].astype(np.float64)
    return np.where(np.isnan(values), missing, values)
