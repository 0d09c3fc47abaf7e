"""Predicting a whole fleet dataset, one row a device and day, and the table that comes out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from .explanation import shapley_values, top_reasons
from .feature_spec import FEATURE_SPEC_VERSION
from .featurize import FeatureTable, featurize
from .parquet_tables import Column, Kind, TableWriter, read_table
from .prediction import ACTIONS, STATUSES, URGENCIES, Action
from .telemetry import CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .fleet_dataset import Fleet
    from .inference import Predictor
    from .telemetry import DeviceProfiles

DEVICES_PER_BLOCK = 64

COLUMNS = {
    "device_id": Column(Kind.TEXT, nullable=False),
    "as_of": Column(Kind.TIME, nullable=False),
    "status": Column(Kind.TEXT, nullable=False),
    "state_of_health": Column(Kind.NUMBER),
    "failure_probability_30d": Column(Kind.NUMBER),
    "days_to_failure_p10": Column(Kind.NUMBER),
    "days_to_failure_p50": Column(Kind.NUMBER),
    "days_to_failure_p90": Column(Kind.NUMBER),
    "confidence": Column(Kind.NUMBER),
    "primary_issue": Column(Kind.TEXT),
    "recommended_action": Column(Kind.TEXT),
    "urgency": Column(Kind.TEXT),
    "flagged": Column(Kind.FLAG),
    "reasons": Column(Kind.TEXT),
    "model_version": Column(Kind.TEXT),
    "feature_spec_version": Column(Kind.TEXT),
}
_KINDS = {name: column.kind for name, column in COLUMNS.items()}


class Reasons(StrEnum):
    """For which rows the reasons are computed: they cost 256 runs of the model each."""

    DUE = "due"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class PredictedFleet:
    """What a run over a fleet came to.

    Attributes:
        num_rows: rows written.
        by_status: rows by status; zero counts are left out.
        num_flagged: flagged rows.
        refused: refused readings and values, by reason.
    """

    num_rows: int
    by_status: dict[str, int]
    num_flagged: int
    refused: dict[str, int]


def predict_fleet(
    fleet: Fleet,
    predictor: Predictor,
    out: Path,
    *,
    now_s: int,
    every_days: int = 1,
    reasons: Reasons = Reasons.DUE,
    on_devices: Callable[[int], None] | None = None,
) -> PredictedFleet:
    """Predict every device at every n-th UTC midnight that its readings reach, and write the table.

    Outcomes are never opened. Rows come device by device, in the order of the fleet.

    Args:
        fleet: the dataset.
        predictor: the model.
        out: Parquet file; appears whole or not at all.
        now_s: readings more than a day later are refused.
        every_days: days between rows.
        reasons: for which rows; `due` = every row that is flagged or not routine monitoring.
        on_devices: called with the number of devices done, for progress.

    Raises:
        DatasetError: when the telemetry cannot be read or the table not be written.
    """
    by_status = np.zeros(len(STATUSES), np.int64)
    num_flagged = 0
    refused: dict[str, int] = {}
    with TableWriter(out, _KINDS) as writer:
        for first, profiles, table in feature_blocks(fleet, now_s=now_s, every_days=every_days):
            columns = prediction_columns(profiles, table, predictor, reasons=reasons)
            writer.write(columns)
            by_status += np.bincount(table.status, minlength=len(STATUSES))
            num_flagged += sum(flag is True for flag in columns["flagged"].tolist())
            for reason, count in table.audit.refused.items():
                refused[reason] = refused.get(reason, 0) + count
            if on_devices is not None:
                on_devices(first + len(profiles))
    named = {str(STATUSES[i]): int(count) for i, count in enumerate(by_status) if count}
    return PredictedFleet(int(by_status.sum()), named, num_flagged, refused)


def feature_blocks(
    fleet: Fleet, *, now_s: int | None, every_days: int = 1
) -> Iterator[tuple[int, DeviceProfiles, FeatureTable]]:
    """Yield (first device, profiles, features) for block after block of a fleet's devices."""
    telemetry = fleet.telemetry()
    for first in range(0, len(fleet.profiles), DEVICES_PER_BLOCK):
        stop = min(first + DEVICES_PER_BLOCK, len(fleet.profiles))
        profiles = fleet.profiles.take(slice(first, stop))
        part = telemetry.devices(first, stop)
        yield first, profiles, featurize(part, profiles, now_s=now_s, every_days=every_days)


def prediction_columns(
    profiles: DeviceProfiles,
    table: FeatureTable,
    predictor: Predictor,
    *,
    reasons: Reasons = Reasons.DUE,
) -> dict[str, NDArray[Any]]:
    """Return the columns of the predictions table for one block of features."""
    ok = np.flatnonzero(table.is_ok())
    features = table.features[ok]
    predictions = predictor.predict(features)
    design = profiles.design_capacity_mah[table.device]
    routine = ACTIONS.index(Action.ROUTINE_MONITORING)
    explained = {
        Reasons.ALL: np.ones(len(ok), bool),
        Reasons.NONE: np.zeros(len(ok), bool),
        Reasons.DUE: predictions.flagged | (predictions.action != routine),
    }[reasons]

    def number(values: NDArray[np.floating]) -> NDArray[np.float64]:
        column = np.full(len(table.status), np.nan)
        column[ok] = values
        return column

    def text(values: NDArray[np.object_]) -> NDArray[np.object_]:
        column = np.full(len(table.status), None, dtype=object)
        column[ok] = values
        return column

    def word(names: tuple[str, ...], index: NDArray[np.intp]) -> NDArray[np.object_]:
        return text(np.array([str(name) for name in names], dtype=object)[index])

    return {
        "device_id": profiles.device_id[table.device],
        "as_of": table.as_of_s,
        "status": np.array([str(s) for s in STATUSES], dtype=object)[table.status],
        "state_of_health": number((table.capacity_mah / design)[ok]),
        "failure_probability_30d": number(predictions.failure_probability_30d),
        "days_to_failure_p10": number(predictions.days_to_failure_p10),
        "days_to_failure_p50": number(predictions.days_to_failure_p50),
        "days_to_failure_p90": number(predictions.days_to_failure_p90),
        "confidence": number(predictions.confidence),
        "primary_issue": word(CAUSES, predictions.cause),
        "recommended_action": word(ACTIONS, predictions.action),
        "urgency": word(URGENCIES, predictions.urgency),
        "flagged": text(predictions.flagged.astype(object)),
        "reasons": text(_reasons_text(predictor, features, explained)),
        "model_version": np.full(len(table.status), predictor.bundle.version, dtype=object),
        "feature_spec_version": np.full(len(table.status), FEATURE_SPEC_VERSION, dtype=object),
    }


def _reasons_text(
    predictor: Predictor, features: NDArray[np.float32], explained: NDArray[np.bool_]
) -> NDArray[np.object_]:
    texts = np.full(len(features), None, dtype=object)
    rows = np.flatnonzero(explained)
    for row, values in zip(rows, shapley_values(predictor, features[rows]), strict=True):
        texts[row] = "; ".join(f"{r.code} {r.share:.2f}" for r in top_reasons(values))
    return texts


def read_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """Read a predictions table, by column.

    `flagged` comes as an object array of True, False and None.

    Raises:
        DatasetError: when the file is no predictions table.
    """
    return read_table(path, COLUMNS, others_allowed=True)
