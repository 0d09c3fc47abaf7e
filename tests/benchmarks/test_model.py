"""Does the recipe transfer to cells it has not seen, and is the model quick to use?

Ratios and differences are taken within one run. The folds take two processes, some minutes.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import pytest

from models.cycling_cells import import_cells, read_cells
from simulations.default_model import SETTINGS
from simulations.model_sources import FLEETS, cell_copies, fleet_rows, threshold_rows
from simulations.model_study import CellSources, condition_folds, dataset_folds, study_fold
from tests.support.figures import Figures
from tests.support.system_parts import find_cells

FIGURES = Figures("model")
CELL_FILES = ("hust.parquet", "severson_b2.parquet", "tju.parquet")
COLD_START_ROUNDS = 9


@cache
def _sources() -> CellSources:
    folder = find_cells()
    cells = read_cells([folder / name for name in CELL_FILES])
    fleets = [fleet_rows(source) for source in FLEETS]
    return CellSources(cells, fleets, cell_copies(cells), threshold_rows(cells))


def _fold_figures(kind: str, number: int) -> tuple[str, dict]:
    sources = _sources()
    folds = dataset_folds(sources.cells) if kind == "dataset" else condition_folds(sources.cells)
    return folds[number].name, study_fold(sources, folds[number], settings=SETTINGS)


@pytest.mark.cells
def test_recipe_transfers_to_cells_it_has_not_seen():
    _sources()
    tasks = [(kind, number) for kind in ("dataset", "condition") for number in range(3)]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        results = list(pool.map(_fold_figures, *zip(*tasks, strict=True)))
    for (kind, _), (name, gauges) in zip(tasks, results, strict=True):
        clean, noisy = gauges["clean"], gauges["noisy gauge"]
        lag = clean["gradient_boosting"].average_precision - clean["recipe"].average_precision
        FIGURES.add(
            f"{kind} fold, {name}: average precision below gradient boosting",
            lag,
            unit="average precision",
            target=0.05,
            better="lower",
            against="central gradient boosting on the same split",
        )
        lead = noisy["recipe"].f1 - noisy["linear_extrapolation"].f1
        FIGURES.add(
            f"{kind} fold, {name}: F1 above linear extrapolation, noisy gauge",
            lead,
            unit="F1",
            target=0.0,
            better="higher",
            against="linear extrapolation of the same noisy capacities",
        )
        assert lag <= 0.05
        assert lead > 0


@pytest.mark.cells
def test_all_cells_are_predicted_within_a_minute_and_two_gigabytes(tmp_path):
    import_cells([find_cells() / name for name in CELL_FILES], tmp_path / "fleet")
    command = [sys.executable, "-m", "server.cli", "predict", "--fleet", tmp_path / "fleet"]
    started = time.monotonic()
    subprocess.run([*command, "--out", tmp_path / "p.parquet"], check=True, capture_output=True)
    seconds = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    FIGURES.add("predict 249 cells, one window a day", seconds, unit="s", target=60, better="lower")
    FIGURES.add("predict 249 cells, peak memory", memory, unit="GB", target=2, better="lower")
    assert seconds <= 60
    assert memory <= 2


BARE = """
import os
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
model = open(sys.argv[1], "rb").read()
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
session.run(None, {"features": numpy.zeros((1, int(sys.argv[2])), numpy.float32)})
"""


def _cost(command: list[object]) -> tuple[float, float]:
    """Return CPU seconds and peak memory in MB of one process."""
    wrapped = (
        "import json, resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3]))\n"
    )
    arguments = [sys.executable, "-S", "-c", wrapped, *map(str, command)]
    answer = subprocess.run(arguments, check=True, capture_output=True, text=True)
    seconds, memory = map(float, answer.stdout.strip("[]\n ").split(","))
    return seconds, memory


def test_cold_start_to_report_costs_little_more_than_bare_onnxruntime(device_store, tmp_path):
    from models.bundle import DEFAULT_FOLDER
    from models.feature_spec import NUM_FEATURES

    bare = [sys.executable, "-c", BARE, DEFAULT_FOLDER / "model.onnx", NUM_FEATURES]
    ours = [sys.executable, "-m", "edge_client.cli", "predict", "--json", *device_store]
    for command in (bare, ours):
        _cost(command)
    ratios, extra = [], []
    for _ in range(COLD_START_ROUNDS):
        (bare_s, bare_mb), (our_s, our_mb) = _cost(bare), _cost(ours)
        ratios.append(our_s / bare_s)
        extra.append(our_mb - bare_mb)
    for name, values, unit, target in (
        ("cold start to report, CPU time", ratios, "x bare onnxruntime + numpy", 1.2),
        ("cold start to report, memory above bare", extra, "MB", 8),
    ):
        FIGURES.add(
            name,
            statistics.median(values),
            unit=unit,
            target=target,
            better="lower",
            spread=(min(values), max(values)),
            against="bare onnxruntime + numpy doing one run, interleaved",
        )
    assert statistics.median(ratios) <= 1.2
    assert statistics.median(extra) <= 8
