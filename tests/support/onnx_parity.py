"""How far ONNX Runtime and torch are apart on the same rows."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from models.feature_spec import FEATURES
from models.training.export_onnx import export_onnx, network_of
from models.training.outputs import numpy_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.calibration import Calibration
    from models.parameters import Parameters

EXTREMES = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e30, -1e30, 3.4e38, -3.4e38], np.float32
)


@lru_cache(maxsize=8)
def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_graph(content: bytes, features: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Run a graph and return its outputs by name."""
    session = _session(content)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"features": features}), strict=True))


def extreme_rows(seed: int, count: int = 64) -> NDArray[np.float32]:
    """Return rows within the ranges, far beyond them, missing, and of every awkward number."""
    rng = np.random.default_rng(seed)
    low, high = np.array([(f.low, f.high) for f in FEATURES], np.float64).T
    rows = low + (high - low) * rng.uniform(-0.2, 1.2, (count, len(FEATURES)))
    wild = rng.random(rows.shape) < rng.choice([0.0, 0.1, 0.5], (count, 1))
    rows[wild] = rng.normal(0, 1, wild.sum()) * 10.0 ** rng.uniform(-40, 37, wild.sum())
    odd = rng.random(rows.shape) < rng.choice([0.0, 0.2, 1.0], (count, 1))
    rows[odd] = rng.choice(EXTREMES, odd.sum())
    return rows.astype(np.float32)


def worst_differences(
    parameters: Parameters, calibration: Calibration, features: NDArray[np.float32]
) -> tuple[float, float]:
    """Compare a graph exported from these weights with torch: see `differences`."""
    return differences(export_onnx(parameters, calibration), parameters, calibration, features)


def differences(
    graph: bytes, parameters: Parameters, calibration: Calibration, features: NDArray[np.float32]
) -> tuple[float, float]:
    """Return the largest difference of any probability, and the largest relative one of days."""
    runtime = run_graph(graph, features)
    torch_says = numpy_outputs(network_of(parameters), calibration, features)
    probabilities = days = 0.0
    for name, expected in torch_says.items():
        difference = np.abs(runtime[name].astype(float) - expected)
        if name == "days_to_failure":
            days = float((difference / np.maximum(np.abs(expected), 1e-6)).max())
        else:
            probabilities = max(probabilities, float(difference.max()))
    return probabilities, days
