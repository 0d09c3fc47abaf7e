"""A predictions table beside the baselines of A7, on the same windows of the same fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.errors import DatasetError
from models.evaluation import evaluated_rows, quality_of_rows, rule_baselines
from models.feature_spec import NUM_FEATURES
from models.fleet_predictions import feature_blocks, read_predictions
from models.held_out_devices import held_out_devices
from models.metrics import quality
from models.parquet_tables import rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.evaluation import EvaluatedRows
    from models.fleet_dataset import Fleet
    from models.metrics import Quality, Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which devices were judged, and which ones the peers learned from.

    Attributes:
        kind: `all` (peers are cross-fitted by device), or `held_out`: judged on the devices that
            rounds hold out, peers trained on the others.
        devices_judged: devices with a window whose label is known.
        devices_trained: devices that the peers were trained on; 0 without peers.
    """

    kind: Literal["all", "held_out"]
    devices_judged: int
    devices_trained: int


@dataclass(frozen=True, slots=True)
class FleetEvaluation:
    """Figures by model name (the table's model is named `predictions`), all on one split."""

    metrics: dict[str, Quality]
    split: Split


def evaluate_fleet(
    predictions: Path, fleet: Fleet, *, with_peers: bool, held_out: bool = False
) -> FleetEvaluation:
    """Measure the model behind a table, the rules, and (if asked for) central peers.

    Args:
        predictions: the table.
        fleet: the fleet that it was made from, with outcomes.
        with_peers: train logistic regression and gradient boosting, cross-fitted by device.
        held_out: judge on the devices that rounds hold out alone, and train the peers on all
            others: what is fair to a model that learned from these.

    Raises:
        DatasetError: when table and fleet do not belong together, or no window that could be
            judged is left.
    """
    table = read_predictions(predictions)
    outcomes = fleet.outcomes()
    found = evaluated_rows(table, outcomes, predictions)
    keys = _keys(
        rows_of(outcomes.device_ids, table["device_id"][found.rows]),
        table["as_of"][found.rows].astype(np.int64),
    )
    is_judged = np.ones(len(keys), np.bool_)
    if held_out:
        is_judged = held_out_devices(outcomes.device_ids)[found.windows.device]
        _refuse_nothing_to_judge(found, is_judged, predictions)
    features = _features_at(fleet, keys, predictions)
    judged = found.take(is_judged)
    metrics = {"predictions": quality_of_rows(table, judged)}
    metrics |= rule_baselines(features[is_judged], judged.windows)
    if with_peers:
        metrics |= _peers(features, found.windows, is_judged=is_judged, held_out=held_out)
    learned = ~is_judged if held_out else is_judged
    return FleetEvaluation(
        metrics,
        Split(
            kind="held_out" if held_out else "all",
            devices_judged=_num_devices(found.windows, is_judged),
            devices_trained=_num_devices(found.windows, learned) if with_peers else 0,
        ),
    )


def _refuse_nothing_to_judge(
    found: EvaluatedRows, is_judged: NDArray[np.bool_], where: Path
) -> None:
    if not (is_judged & found.windows.known).any():
        remedy = "predict a larger fleet, or judge all devices without --held-out"
        raise DatasetError(where, "holds no window of a device that rounds hold out", remedy)


def _peers(
    features: NDArray[np.float32],
    windows: Windows,
    *,
    is_judged: NDArray[np.bool_],
    held_out: bool,
) -> dict[str, Quality]:
    from models.training.baselines import PEERS, cross_fitted, score_with_peer

    found = {}
    learned = ~is_judged & windows.known
    for name in PEERS:
        if held_out:
            scores = score_with_peer(
                name,
                train=(features[learned], windows.label[learned], windows.device[learned]),
                test_features=features[is_judged],
                seed=0,
            )
        else:
            scores = cross_fitted(
                name,
                features=features,
                label=windows.label,
                known=windows.known,
                group=windows.device,
            )
        found[name] = quality(
            windows.take(is_judged), probability=scores.probability, flagged=scores.flagged
        )
    return found


def _num_devices(windows: Windows, chosen: NDArray[np.bool_]) -> int:
    return len(np.unique(windows.device[chosen & windows.known]))


def _keys(device: NDArray[np.int64], as_of_s: NDArray[np.int64]) -> NDArray[np.int64]:
    return device << 40 | as_of_s


def _features_at(fleet: Fleet, keys: NDArray[np.int64], where: Path) -> NDArray[np.float32]:
    found_keys, found = [], []
    for first, _, table in feature_blocks(fleet, now_s=None):
        found_keys.append(_keys(table.device + first, table.as_of_s))
        found.append(table.features)
    every_key, every_row = np.concatenate(found_keys), np.concatenate(found)
    order = np.argsort(every_key)
    position = np.searchsorted(every_key[order], keys)
    position = np.minimum(position, len(order) - 1)
    if not (every_key[order][position] == keys).all():
        remedy = "evaluate predictions with the fleet they were made from"
        raise DatasetError(where, "holds moments that the fleet does not have", remedy)
    features: NDArray[np.float32] = every_row.reshape(-1, NUM_FEATURES)[order[position]]
    return features
