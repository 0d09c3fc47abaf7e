"""What a prediction costs on a device: from the store to the report, and over years of them."""

from __future__ import annotations

import gc
import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_client import EdgeClient
from edge_client.incremental_features import current_features
from models.feature_spec import NUM_FEATURES
from models.telemetry import Reading
from models.training.export_onnx import IR_VERSION, OPSET, read_parameters
from tests.support.edge_devices import NOW, fading_life, new_store
from tests.support.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Callable

FIGURES = Figures("edge")
ROUNDS = 15
RUNS_A_ROUND = 200
DAYS = 60
AGAIN = 10
NUM_PREDICTIONS = 100_000


@pytest.fixture
def client(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(days=700), now=NOW)
    with EdgeClient(store.path) as client:
        yield client


def bare_network(client: EdgeClient) -> Callable[[], object]:
    """Return what runs the layers of the model alone, on values that are scaled already."""
    weights = read_parameters(client.predictor.bundle.model_bytes).named()
    constants, nodes, last = [], [], "scaled"
    for name in ("trunk.0", "trunk.2", "head"):
        for part, values in (
            ("weight", weights[f"{name}.weight"].T),
            ("bias", weights[f"{name}.bias"]),
        ):
            array = np.ascontiguousarray(values)
            constants.append(numpy_helper.from_array(array, f"{name}.{part}"))
        linear = helper.make_node("Gemm", [last, f"{name}.weight", f"{name}.bias"], [f"{name}.sum"])
        nodes.append(linear)
        last = f"{name}.sum"
        if name != "head":
            nodes.append(helper.make_node("Tanh", [last], [f"{name}.out"]))
            last = f"{name}.out"
    width = weights["trunk.0.weight"].shape[1]
    graph = helper.make_graph(
        nodes,
        "bare",
        [helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", None])],
        constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"scaled": np.zeros((1, width), np.float32)}
    return lambda: session.run(None, feed)


def median_us(run: Callable[[], object], runs: int) -> float:
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return 1e6 * statistics.median(taken)


def test_the_model_alone_costs_little_more_than_its_bare_network(client):
    features = np.random.default_rng(1).uniform(0, 1, (1, NUM_FEATURES)).astype(np.float32)
    bare, predictor = bare_network(client), client.predictor

    def ours() -> object:
        return predictor.outputs(features)

    for run in (bare, ours):
        median_us(run, RUNS_A_ROUND)
    pairs = [(median_us(bare, RUNS_A_ROUND), median_us(ours, RUNS_A_ROUND)) for _ in range(ROUNDS)]
    ratios = [our / plain for plain, our in pairs]
    FIGURES.add(
        "model alone, one row",
        statistics.median(ratios),
        unit="x session.run of the bare network",
        target=4,
        better="lower",
        spread=(min(ratios), max(ratios)),
        against="the three layers alone in ONNX Runtime, float32, interleaved",
    )
    FIGURES.add(
        "model alone, one row, time",
        statistics.median(our for _, our in pairs),
        unit="us",
        target=None,
        better="lower",
    )
    assert statistics.median(ratios) <= 4


def test_features_and_model_of_one_device_take_a_millisecond_from_the_store(client):
    """Each simulated day brings readings, a prediction that closes a day, and some that do not.

    After a durable write a processor is cold: the first of those takes about twice the time of the
    next, and is told apart.
    """
    closing, first, later, report = [], [], [], []
    for day in range(DAYS):
        for hours in (1, 7, 13, 19):
            at = NOW + timedelta(days=day, hours=hours)
            client.record(
                Reading(
                    at=at,
                    full_charge_capacity_mah=2440.0 - day,
                    charge_cycle_count=420.0 + day,
                    charge_duration_min=140.0,
                    battery_temp_max_c=33.0,
                    battery_temp_avg_c=27.0,
                    unexpected_shutdown_count=4.0,
                    usage_hours=1.5,
                    internal_resistance_mohm=90.0,
                ),
                now=at,
            )
        now = NOW + timedelta(days=day, hours=20)
        for taken in (closing, first, *[later] * AGAIN):
            started = time.perf_counter()
            table, _ = current_features(client.store, now=now)
            client.predictor.predict(table.features)
            taken.append(1e3 * (time.perf_counter() - started))
        started = time.perf_counter()
        client.predict(now)
        report.append(1e3 * (time.perf_counter() - started))
    for name, taken, target in (
        ("features and model from the store", later, 1.0),
        ("features and model from the store, the first time after a write", first, None),
        ("features and model from the store, closing a day durably", closing, None),
        ("report with reasons from the store", report, None),
    ):
        FIGURES.add(
            name,
            statistics.median(taken),
            unit="ms",
            target=target,
            better="lower",
            spread=(min(taken), max(taken)),
        )
    assert statistics.median(later) <= 1.0


def resident_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("this system tells no resident memory")


def test_years_of_predictions_leave_no_memory_behind(client):
    features = np.random.default_rng(1).uniform(0, 1, (64, NUM_FEATURES)).astype(np.float32)
    predictor, now = client.predictor, NOW + timedelta(hours=1)

    def predict(count: int) -> None:
        for number in range(count):
            predictor.predict(features[number % 64, None])
            if number % 100 == 0:
                client.predict(now + timedelta(seconds=number % 1000))

    predict(NUM_PREDICTIONS // 10)
    gc.collect()
    before = resident_kb()
    predict(NUM_PREDICTIONS)
    gc.collect()
    growth = (resident_kb() - before) / 1e3
    FIGURES.add(
        f"memory growth over {NUM_PREDICTIONS:,} predictions",
        growth,
        unit="MB",
        target=1,
        better="lower",
    )
    assert growth <= 1
