"""Does the recipe transfer to cells it has not seen, and is the model quick to use?

Ratios and differences are taken within one run. The folds take two processes, some minutes.
"""

from __future__ import annotations

import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import pytest

from models.cycling_cells import import_cells, read_cells
from models.fleet_predictions import read_predictions
from simulations.default_model import SETTINGS
from simulations.demo.processes import program
from simulations.model_sources import FLEETS, cell_copies, fleet_rows, threshold_rows
from simulations.model_study import (
    CLEAN,
    NOISY,
    CellSources,
    condition_folds,
    dataset_folds,
    study_fold,
)
from tests.support.figures import Figures
from tests.support.process_cost import cost_of
from tests.support.system_parts import find_cells

FIGURES = Figures("model")
CELL_FILES = ("hust.parquet", "severson_b2.parquet", "tju.parquet")
SEEDS = {"dataset": (0, 1, 2), "condition": (0,)}
OURS = "median over seeds of the recipe and of the gauge's noise"


@cache
def _sources() -> CellSources:
    folder = find_cells()
    cells = read_cells([folder / name for name in CELL_FILES])
    fleets = [fleet_rows(source) for source in FLEETS]
    return CellSources(cells, fleets, cell_copies(cells), threshold_rows(cells))


def _study(kind: str, number: int, seed: int) -> tuple[str, dict]:
    """Retrain the recipe for a fold; the first seed trains the peer that the figures need too."""
    sources = _sources()
    folds = dataset_folds(sources.cells) if kind == "dataset" else condition_folds(sources.cells)
    peers = {CLEAN: () if seed else ("gradient_boosting",), NOISY: ()}
    figures = study_fold(sources, folds[number], settings=SETTINGS, seed=seed, peers=peers)
    return folds[number].name, figures


@pytest.mark.cells
def test_recipe_transfers_to_cells_it_has_not_seen():
    _sources()
    folds = [(kind, number) for kind in ("dataset", "condition") for number in range(3)]
    tasks = [(*fold, seed) for fold in folds for seed in SEEDS[fold[0]]]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        studied = dict(zip(tasks, pool.map(_study, *zip(*tasks, strict=True)), strict=True))
    lags, leads = {}, {}
    for kind, number in folds:
        runs = [studied[kind, number, seed] for seed in SEEDS[kind]]
        name = f"{kind} fold, {runs[0][0]}"
        peer = runs[0][1][CLEAN]["gradient_boosting"].average_precision
        lags[name] = [peer - run[CLEAN]["recipe"].average_precision for _, run in runs]
        leads[name] = [
            run[NOISY]["recipe"].f1 - run[NOISY]["linear_extrapolation"].f1 for _, run in runs
        ]
        _add_median(
            f"{name}: average precision below gradient boosting",
            lags[name],
            unit="average precision",
            target=0.05,
            better="lower",
            against=f"central gradient boosting on the same split (one seed); {OURS}",
        )
        _add_median(
            f"{name}: F1 above linear extrapolation, noisy gauge",
            leads[name],
            unit="F1",
            target=0.0,
            better="higher",
            against=f"linear extrapolation of the same noisy capacities; {OURS}",
        )
    assert {name: lag for name, lag in lags.items() if statistics.median(lag) > 0.05} == {}
    assert {name: lead for name, lead in leads.items() if statistics.median(lead) <= 0} == {}


def _add_median(name: str, values: list[float], **described: Any) -> None:
    spread = (min(values), max(values))
    FIGURES.add(name, statistics.median(values), spread=spread, **described)


@pytest.mark.cells
def test_all_cells_are_predicted_within_a_minute_and_two_gigabytes(tmp_path):
    import_cells([find_cells() / name for name in CELL_FILES], tmp_path / "fleet")
    table = tmp_path / "p.parquet"
    command = [program("fedcell"), "predict", "--bundle", "default", "--fleet", tmp_path / "fleet"]
    seconds, _, memory = cost_of([*command, "--every", "1d", "--out", table])
    FIGURES.add("predict 249 cells, one window a day", seconds, unit="s", target=60, better="lower")
    FIGURES.add("predict 249 cells, peak memory", memory, unit="MB", target=2000, better="lower")
    assert len(read_predictions(table)["status"]) > 215_000
    assert seconds <= 60
    assert memory <= 2000
