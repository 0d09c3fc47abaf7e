"""How the recipe transfers: retrained for each fold of the cells, beside the peers of A7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.evaluation import device_windows, rule_baselines
from models.featurize import featurize
from models.metrics import quality
from models.training.baselines import PEERS, score_with_peer
from models.training.outputs import numpy_outputs
from models.training.recipe import train_model

from .model_sources import NUM_VIEWS, noisy_cells, only_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from models.cycling_cells import ImportedCells
    from models.featurize import FeatureTable
    from models.metrics import Quality, Windows
    from models.training.recipe import RecipeSettings, TrainedModel
    from models.training_rows import TrainingRows

NOISE_SEED = 5
CLEAN, NOISY = "clean", "noisy gauge"
EVERY_PEER: Mapping[str, tuple[str, ...]] = {CLEAN: PEERS, NOISY: PEERS}


@dataclass(frozen=True, slots=True)
class CellSources:
    """Everything that folds share.

    Attributes:
        cells: the imported cells.
        fleets: rows of the simulated fleets.
        copies: rows of the cells, measured and augmented, one table a copy.
        threshold_rows: rows of the cells through the noisy gauge, one table a data set.
    """

    cells: ImportedCells
    fleets: Sequence[TrainingRows]
    copies: Sequence[TrainingRows]
    threshold_rows: Sequence[TrainingRows]


@dataclass(frozen=True, slots=True)
class Fold:
    """One split of the cells.

    Attributes:
        name: what was left out.
        test: bool, shape (n_cells,): the cells judged; the others are learnt from.
    """

    name: str
    test: NDArray[np.bool_]


def dataset_folds(cells: ImportedCells) -> list[Fold]:
    """Leave one data set out: other people's cells are what users have."""
    names = sorted(set(cells.datasets.tolist()))
    return [Fold(f"without {name}", cells.datasets == name) for name in names]


def condition_folds(cells: ImportedCells, *, num_folds: int = 3, seed: int = 0) -> list[Fold]:
    """Deal test conditions into folds: replicates of one condition stay together."""
    key = np.array(
        [f"{d} {c}" for d, c in zip(cells.datasets, cells.conditions, strict=True)], dtype=str
    )
    conditions, of_cell = np.unique(key, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(conditions)) % num_folds
    return [Fold(f"conditions {n + 1}/{num_folds}", fold[of_cell] == n) for n in range(num_folds)]


def study_fold(
    sources: CellSources,
    fold: Fold,
    *,
    settings: RecipeSettings,
    seed: int = 0,
    peers: Mapping[str, Sequence[str]] = EVERY_PEER,
    on_step: Callable[[int], None] | None = None,
) -> dict[str, dict[str, Quality]]:
    """Retrain the recipe and its peers without a fold's cells, and judge all on them.

    Args:
        sources: what all folds share.
        fold: whose cells are judged.
        settings: of the recipe.
        seed: of everything random; the noisy gauge draws by it too, `NOISE_SEED` further.
        peers: by gauge ("clean", "noisy gauge"), which of `PEERS` are trained for it.
        on_step: called with each step's number.

    Returns:
        Gauge ("clean", "noisy gauge") -> model name -> figures; the recipe is `recipe`.
    """
    train = ~fold.test
    cells = [only_devices(copy, train) for copy in sources.copies]
    of_cells = [only_devices(table, train) for table in sources.threshold_rows]
    model = train_model(
        [*cells, *NUM_VIEWS * list(sources.fleets)],
        [*of_cells, *sources.fleets],
        settings=settings,
        seed=seed,
        on_step=on_step,
    )
    noisy = noisy_cells(sources.cells, seed=NOISE_SEED + seed)
    results = {}
    for gauge, telemetry in ((CLEAN, sources.cells.telemetry), (NOISY, noisy)):
        table = featurize(telemetry, sources.cells.profiles)
        results[gauge] = _judge(
            sources.cells, table, fold.test, model, peers=peers[gauge], seed=seed
        )
    return results


def _judge(
    cells: ImportedCells,
    table: FeatureTable,
    test: NDArray[np.bool_],
    model: TrainedModel,
    *,
    peers: Sequence[str],
    seed: int,
) -> dict[str, Quality]:
    if cells.outcomes is None:
        message = "cells without eol_flag cannot be judged"
        raise ValueError(message)
    ok = table.is_ok()
    everything = device_windows(table.device, table.as_of_s, cells.outcomes)
    learnt = ok & ~test[table.device] & everything.known
    judged = ok & test[table.device]
    known = device_windows(table.device[judged], table.as_of_s[judged], cells.outcomes)
    features = table.features[judged]
    figures = {"recipe": judge_model(model, features, known)}
    figures |= rule_baselines(features, known)
    for name in peers:
        train = (table.features[learnt], everything.label[learnt], table.device[learnt])
        scores = score_with_peer(name, train=train, test_features=features, seed=seed)
        figures[name] = quality(known, probability=scores.probability, flagged=scores.flagged)
    return figures


def judge_model(model: TrainedModel, features: NDArray[np.float32], known: Windows) -> Quality:
    """Measure a trained model on windows."""
    outputs = numpy_outputs(model.network(), model.calibration, features)
    days = outputs["days_to_failure"]
    return quality(
        known,
        probability=outputs["failure_probability_30d"],
        days_p10=days[:, 0],
        days_p50=days[:, 1],
        days_p90=days[:, 2],
        threshold=model.threshold,
    )
