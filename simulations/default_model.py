"""Building the bundle that ships with the package, from public data alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from models.cycling_cells import read_cells
from models.evaluation import device_windows, rule_baselines
from models.featurize import featurize
from models.metrics import quality
from models.model_card import LIMITS, PURPOSE, ModelCard, public_data_statement
from models.training.baselines import PEERS, cross_fitted
from models.training.recipe import RecipeSettings, bundle_of, train_model
from models.training_rows import TrainingRows

from .fleet import simulate_fleet
from .model_sources import FLEETS, NUM_VIEWS, FleetSource, cell_copies, fleet_rows, threshold_rows
from .model_study import CellSources, dataset_folds, judge_model, study_fold
from .recipe import FleetRecipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.bundle import Bundle
    from models.metrics import Quality
    from models.training.recipe import TrainedModel

SETTINGS = RecipeSettings()
CHECK_SEED = 77
CHECK_DEVICES = 600
CHECK_DAYS = 540
CONFIDENCE_FLEET = FleetSource(
    name="for confidence", num_devices=1000, seed=80, recipe=FleetRecipe()
)


def build_default_bundle(
    cell_files: Sequence[Path],
    *,
    seed: int = 0,
    settings: RecipeSettings = SETTINGS,
    judge_folds: bool = True,
    say: Callable[[str], None],
) -> Bundle:
    """Train the default model and put its bundle together.

    Args:
        cell_files: cycling data of public cells; empty builds a simulation-only bundle.
        seed: of everything random: the same seed and files give the same bundle.
        settings: of the recipe.
        judge_folds: retrain the recipe without each set of cells and put its figures on the card.
        say: takes a line for each step, for progress.
    """
    say(f"simulating {len(FLEETS)} fleets")
    fleets = [fleet_rows(source) for source in FLEETS]
    trained_on = [
        f"simulated fleet '{s.name}': {s.num_devices} devices, seed {s.seed}" for s in FLEETS
    ]
    digests = {f"fleet {s.name}": _digest(repr(s).encode()) for s in FLEETS}
    metrics: dict[str, dict[str, Quality]] = {}
    copies: list[TrainingRows] = []
    for_threshold = list(fleets)
    if cell_files:
        say("preparing the cells")
        cells = read_cells(cell_files)
        copies = cell_copies(cells)
        of_cells = threshold_rows(cells)
        for_threshold += of_cells
        sources = CellSources(cells, fleets, copies, of_cells)
        trained_on += [
            f"cells '{name}': {int((cells.datasets == name).sum())}"
            for name in sorted(set(cells.datasets.tolist()))
        ]
        digests |= {path.name: _digest(path.read_bytes()) for path in cell_files}
        for fold in dataset_folds(cells) if judge_folds else ():
            say(f"judging the recipe {fold.name}")
            for gauge, figures in study_fold(sources, fold, settings=settings, seed=seed).items():
                metrics[f"Cells, trained {fold.name}, judged on it, {gauge}"] = figures
    else:
        trained_on.append("no real cell: this is a simulation-only bundle")
    say("training")
    model = train_model([*copies, *NUM_VIEWS * fleets], for_threshold, settings=settings, seed=seed)
    say("judging on a simulated fleet it has not seen")
    metrics["Simulated fleet, another seed"] = _on_unseen_fleet(model)
    kind = "" if cell_files else " (simulation only)"
    card = ModelCard(
        title=f"fedcell default battery model{kind}",
        purpose=PURPOSE,
        trained_on=tuple(trained_on),
        metrics=metrics,
        privacy=public_data_statement(digests),
        limits=LIMITS,
    )
    say("fitting confidence on a simulated fleet it has not seen")
    return bundle_of(
        model,
        TrainingRows.concatenate([*copies, *fleets]),
        name="default",
        card=card,
        unseen=fleet_rows(CONFIDENCE_FLEET),
    )


def _on_unseen_fleet(model: TrainedModel) -> dict[str, Quality]:
    fleet = simulate_fleet(
        num_devices=CHECK_DEVICES, num_days=CHECK_DAYS, seed=CHECK_SEED, recipe=FleetRecipe()
    )
    table = featurize(fleet.telemetry, fleet.profiles)
    judged = table.is_ok() & (table.pack == 0)
    known = device_windows(table.device[judged], table.as_of_s[judged], fleet.outcomes)
    features = table.features[judged]
    figures = {"recipe": judge_model(model, features, known)} | rule_baselines(features, known)
    for name in PEERS:
        scores = cross_fitted(
            name, features=features, label=known.label, known=known.known, group=known.device
        )
        figures[name] = quality(known, probability=scores.probability, flagged=scores.flagged)
    return figures


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
