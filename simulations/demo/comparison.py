"""All models of A7 and ours, trained on one fleet or none, judged on the windows of another."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.calibration import Calibration
from models.evaluation import rule_baselines
from models.metrics import quality, reliability
from models.training.baselines import PEERS, score_with_peer
from models.training.export_onnx import read_parameters
from models.training.recipe import TrainedModel, soon_labels

from ..model_study import judge_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.bundle import Bundle
    from models.metrics import Quality

    from .scene import JudgedFleet, TrainingFleet

PEERS_LOOK_EVERY_DAYS = 3
"""Days in a row say nearly the same; each third trains the central peers three times as fast."""


def model_of(bundle: Bundle) -> TrainedModel:
    """Return weights, calibration and threshold that a bundle was made of."""
    return TrainedModel(
        parameters=read_parameters(bundle.model_bytes),
        calibration=Calibration(**bundle.manifest["calibration"]),
        threshold=bundle.threshold,
    )


def compare(
    judged: JudgedFleet,
    training: TrainingFleet,
    models: Mapping[str, TrainedModel],
    *,
    seed: int,
    tell: Callable[[str], None],
) -> dict[str, Quality]:
    """Measure rules, central peers and our models on the same windows.

    Args:
        judged: the fleet that is judged on.
        training: the fleet whose rows the central peers see, all of them and without noise.
        models: ours, by name.
        seed: of the peers.
        tell: takes a line for each step.

    Returns:
        Figures by model name, rules first, then peers, then ours.
    """
    figures = dict(rule_baselines(judged.features, judged.windows))
    rows = training.rows.take(slice(None, None, PEERS_LOOK_EVERY_DAYS))
    label, known = soon_labels(rows)
    for name in PEERS:
        tell(f"training the central, non-private peer {name.replace('_', ' ')}")
        scores = score_with_peer(
            name,
            train=(rows.features[known], label[known], rows.device[known]),
            test_features=judged.features,
            seed=seed,
        )
        figures[name] = quality(
            judged.windows, probability=scores.probability, flagged=scores.flagged
        )
    for name, model in models.items():
        figures[name] = judge_model(model, judged.features, judged.windows)
    return {name: _finite(figure) for name, figure in figures.items()}


def calibration_bins(
    judged: JudgedFleet, models: Mapping[str, TrainedModel]
) -> dict[str, tuple[tuple[float, float, int], ...]]:
    """Return bins of (mean probability, frequency, windows) of each model."""
    known = judged.windows.known
    label = judged.windows.label[known]
    features = judged.features[known]
    return {
        name: tuple(reliability(label, model.probability(features)))
        for name, model in models.items()
    }


def quality_on(fleet: JudgedFleet, model: TrainedModel, *, of_devices: np.ndarray) -> Quality:
    """Measure a model on some devices of a fleet.

    Args:
        fleet: simulated.
        model: ours.
        of_devices: bool, shape (n_devices,): which devices count.
    """
    windows = fleet.windows
    only = replace(windows, known=windows.known & of_devices[windows.device])
    only = replace(only, days_left=np.where(of_devices[windows.device], windows.days_left, np.nan))
    return _finite(judge_model(model, fleet.features, only))


def _finite(figure: Quality) -> Quality:
    """Leave out an error in days that is infinite: the rule names no day for some window."""
    error = figure.mae_days_when_90_or_less
    if error is None or math.isfinite(error):
        return figure
    return replace(figure, mae_days_when_90_or_less=None)
