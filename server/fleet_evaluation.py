"""A predictions table beside the baselines of A7, on the same windows of the same fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.errors import DatasetError
from models.evaluation import evaluate_predictions, evaluated_rows, rule_baselines
from models.feature_spec import NUM_FEATURES
from models.fleet_predictions import feature_blocks, read_predictions
from models.metrics import quality
from models.parquet_tables import rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.fleet_dataset import Fleet
    from models.metrics import Quality


def evaluate_fleet(predictions: Path, fleet: Fleet, *, with_peers: bool) -> dict[str, Quality]:
    """Measure the model behind a table, the rules, and (if asked for) central peers.

    Args:
        predictions: the table.
        fleet: the fleet that it was made from, with outcomes.
        with_peers: train logistic regression and gradient boosting, cross-fitted by device.

    Returns:
        Figures by model name; the table's model is named `predictions`.

    Raises:
        DatasetError: when table and fleet do not belong together.
    """
    table = read_predictions(predictions)
    outcomes = fleet.outcomes()
    metrics = {"predictions": evaluate_predictions(table, outcomes, where=predictions)}
    judged = evaluated_rows(table, outcomes, predictions)
    keys = _keys(
        rows_of(outcomes.device_ids, table["device_id"][judged.rows]),
        table["as_of"][judged.rows].astype(np.int64),
    )
    features = _features_at(fleet, keys, predictions)
    metrics |= rule_baselines(features, judged.windows)
    if with_peers:
        from models.training.baselines import PEERS, cross_fitted

        for name in PEERS:
            scores = cross_fitted(
                name,
                features=features,
                label=judged.windows.label,
                known=judged.windows.known,
                group=judged.windows.device,
            )
            metrics[name] = quality(
                judged.windows, probability=scores.probability, flagged=scores.flagged
            )
    return metrics


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
