"""Does a device that updates for years grow, and what does an update or the NumPy backend cost?

Python takes memory in steps of 1 MiB, and ONNX Runtime's sessions reach their height after some
hundred; growth counts from there.

Ratios are taken within one run, in turns, medians of at least 7 rounds. The bundles are the
default one under two names, so what is measured is the client and not the model.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from edge_client.updates.bundle_gate import try_out, verify
from models.backend_parity import backend_parity, parity_rows
from models.bundle import load_bundle
from models.inference import Predictor
from models.numpy_backend import NumpySession
from tests.support.figures import Figures
from tests.support.system_parts import REPOSITORY
from tests.support.update_bundles import trusted_keys, write_variant

FIGURES = Figures("edge")
ROUNDS = 9
NUM_UPDATES = 500
WARM_UPDATES = 300
FIXED_HEAP = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Keeps glibc from moving its thresholds, so that large buffers are given back when freed."""

UPDATING = """
import ctypes, gc, json, sys
from pathlib import Path
from edge_client.updates import bundle_gate
from edge_client.model_store import ModelStore
from models.backend_parity import parity_rows
from models.inference import Predictor
from tests.support.update_bundles import trusted_keys

folder, warm, counted, is_real = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if is_real == "no":
    bundle_gate.try_out = lambda bundle, **choices: None
rows, keys = parity_rows(1), trusted_keys()

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def update(number):
    models = ModelStore(folder / "device.db.models")
    models.install(folder / f"{number % 2}.zip", trusted_keys=keys)
    models.begin_boot()
    predictor = Predictor(models.open())
    predictor.outputs(rows)
    assert models.commit(digest=predictor.bundle.digest)

for number in range(warm):
    update(number)
before = resident()
for number in range(warm, warm + counted):
    update(number)
print(json.dumps({"before_kib": before, "after_kib": resident()}))
"""


def growth_mib(folder, *, warm, counted, with_child):
    """Run an updating device in a process of its own, and return how much its memory grew."""
    for number in (0, 1):
        write_variant(folder / f"{number}.zip", number)
    said = subprocess.run(
        [
            *(sys.executable, "-c", UPDATING, str(folder)),
            *(str(warm), str(counted), "yes" if with_child else "no"),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env=os.environ | FIXED_HEAP,
    )
    found = json.loads(said.stdout)
    return (found["after_kib"] - found["before_kib"]) / 1024


def test_memory_over_500_updates(tmp_path):
    """Each is gated, written, started, opened in a new session, and committed.

    The child process, which costs most of the time, takes part in the soak test below.
    """
    growth = growth_mib(tmp_path, warm=WARM_UPDATES, counted=NUM_UPDATES, with_child=False)
    FIGURES.add(
        "memory growth over 500 updates",
        growth,
        unit="MB",
        target=1.0,
        better="lower",
        against=f"after {WARM_UPDATES} updates; what is free is given back before each look",
    )
    assert growth <= 1.0


@pytest.mark.soak
def test_memory_over_500_updates_with_their_child_process(tmp_path):
    assert growth_mib(tmp_path, warm=100, counted=NUM_UPDATES, with_child=True) <= 1.0


def spent(work):
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def test_an_update_costs_no_more_than_a_second(tmp_path):
    path = write_variant(tmp_path / "b.zip", 1)
    checks, trials = [], []
    for _ in range(ROUNDS):
        checks.append(spent(lambda: verify(path, trusted_keys=trusted_keys())))
        bundle = verify(path, trusted_keys=trusted_keys())
        trials.append(spent(lambda bundle=bundle: try_out(bundle, scratch=tmp_path)))
    FIGURES.add(
        "size, hashes, signature and structure of a bundle",
        1000 * statistics.median(checks),
        unit="ms",
        target=None,
        better="lower",
        spread=(1000 * min(checks), 1000 * max(checks)),
        against="the bundle's first run in a child process, the next figure",
    )
    FIGURES.add(
        "first run in a child process",
        1000 * statistics.median(trials),
        unit="ms",
        target=1000.0,
        better="lower",
        spread=(1000 * min(trials), 1000 * max(trials)),
        against="the checks before it, in turns",
    )
    assert statistics.median(trials) <= 1.0


def test_numpy_backend_against_onnx_runtime():
    bundle = load_bundle()
    ours = NumpySession(bundle.model_bytes)
    theirs = Predictor(bundle)
    theirs.outputs(parity_rows(1))
    for name, num_rows, target in (("one row", 1, 4.0), ("256 rows", 256, 2.0)):
        rows = np.ascontiguousarray(parity_rows(num_rows))
        pairs = []
        gc.disable()
        for _ in range(ROUNDS):
            inner = range(200 if num_rows == 1 else 40)
            numpy_s = spent(lambda: [ours.run(None, {"features": rows}) for _ in inner])  # noqa: B023
            runtime_s = spent(lambda: [theirs.outputs(rows) for _ in inner])  # noqa: B023
            pairs.append(numpy_s / runtime_s)
        gc.enable()
        FIGURES.add(
            f"NumPy backend, {name}",
            statistics.median(pairs),
            unit="x ONNX Runtime",
            target=target,
            better="lower",
            spread=(min(pairs), max(pairs)),
            against="session.run of ONNX Runtime, in turns",
        )
        assert statistics.median(pairs) <= target


def test_numpy_backend_equals_onnx_runtime():
    parity = backend_parity(load_bundle(), parity_rows(4096))
    for name, value in (("probability", parity.probability), ("days", parity.days)):
        FIGURES.add(
            f"NumPy backend, largest difference of {name}",
            value,
            unit="absolute" if name == "probability" else "relative",
            target=1e-5,
            better="lower",
            against="ONNX Runtime on 4,096 rows, extremes among them",
        )
    assert parity.is_equal
