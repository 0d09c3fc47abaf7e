"""Running a bundle: the one door to ONNX Runtime."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .bundle import OUTPUTS
from .errors import BundleError
from .feature_spec import NUM_FEATURES
from .prediction import action_band, urgency_band

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from .bundle import Bundle

GOLDEN_TOLERANCE = 1e-3
BATCH_ROWS = 16_384


class Predictions(NamedTuple):
    """Outputs and decisions for n feature rows, arrays of shape (n,).

    Attributes:
        failure_probability_30d: float32, calibrated.
        days_to_failure_p10: float32, days.
        days_to_failure_p50: float32, days.
        days_to_failure_p90: float32, days.
        confidence: float32, probability that the failure day lies in the chosen action's band,
            brought to what comes true by the bundle's `confidence_scales`.
        cause: int, index into `telemetry.CAUSES` of the likeliest cause.
        action: int, index into `prediction.ACTIONS`.
        urgency: int, index into `prediction.URGENCIES`.
        flagged: bool, probability at or above the bundle's threshold.
    """

    failure_probability_30d: NDArray[np.float32]
    days_to_failure_p10: NDArray[np.float32]
    days_to_failure_p50: NDArray[np.float32]
    days_to_failure_p90: NDArray[np.float32]
    confidence: NDArray[np.float32]
    cause: NDArray[np.intp]
    action: NDArray[np.intp]
    urgency: NDArray[np.intp]
    flagged: NDArray[np.bool_]


class Backend(StrEnum):
    """What runs the graph."""

    ONNX_RUNTIME = "onnxruntime"
    NUMPY = "numpy"


class _OneRow:
    """One row through ONNX Runtime over buffers that are bound once, for a process that stays."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._row = np.zeros((1, NUM_FEATURES), np.float32)
        self._made = {
            output.name: np.zeros((1, *output.shape[1:]), np.float32)
            for output in session.get_outputs()
        }
        self._binding = session.io_binding()
        self._bind(self._binding.bind_input, "features", self._row)
        for name, made in self._made.items():
            self._bind(self._binding.bind_output, name, made)

    @staticmethod
    def _bind(bind: Callable[..., None], name: str, buffer: NDArray[np.float32]) -> None:
        bind(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def run(self, features: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self._row[:] = features
        self._session.run_with_iobinding(self._binding)
        return {name: made.copy() for name, made in self._made.items()}


class Predictor:
    """Runs one bundle on one thread, which is quickest for single devices.

    Args:
        bundle: the model; its session is created at the first run.
        num_threads: of ONNX Runtime.
        backend: None takes ONNX Runtime, or NumPy on machines for which there is none.
    """

    def __init__(
        self, bundle: Bundle, *, num_threads: int = 1, backend: Backend | None = None
    ) -> None:
        self.bundle = bundle
        self._num_threads = num_threads
        self._wanted = backend
        self._has_run = False

    @property
    def backend(self) -> Backend:
        """What runs the graph here."""
        return self._loaded[0]

    @cached_property
    def _confidence_scales(self) -> NDArray[np.float32]:
        return np.array(self.bundle.confidence_scales, np.float32)

    @cached_property
    def _loaded(self) -> tuple[Backend, Any, list[str]]:
        """Which backend runs, its session, and the names of the graph's outputs."""
        session, backend = self._session()
        return backend, session, [output.name for output in session.get_outputs()]

    @cached_property
    def _one_row(self) -> _OneRow:
        return _OneRow(self._loaded[1])

    def _session(self) -> tuple[Any, Backend]:
        if self._wanted is not Backend.NUMPY:
            try:
                return self._onnx_session(), Backend.ONNX_RUNTIME
            except ModuleNotFoundError:
                if self._wanted is Backend.ONNX_RUNTIME:
                    raise
        from .numpy_backend import NumpySession

        return NumpySession(self.bundle.model_bytes), Backend.NUMPY

    def _onnx_session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                self.bundle.model_bytes, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            what = f"ONNX Runtime refuses the graph ({_first_line(error)})"
            raise BundleError(self.bundle.where, what, "use another bundle") from error

    def outputs(
        self, features: NDArray[np.float32], names: list[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Run the graph.

        Args:
            features: float32, shape (n, n_features), raw values, NaN = missing.
            names: outputs wanted; None = all.

        Raises:
            BundleError: when the graph cannot be run.
            ModuleNotFoundError: ONNX Runtime was asked for, and is not installed.
        """
        if features.dtype != np.float32 or features.shape[1:] != (NUM_FEATURES,):
            message = f"features must be float32 (n, {NUM_FEATURES}), got {features.shape}"
            raise ValueError(message)
        _, session, all_names = self._loaded
        wanted = names or all_names
        is_repeated, self._has_run = self._has_run, True
        try:
            if (
                len(features) == 1
                and names is None
                and is_repeated
                and self.backend is Backend.ONNX_RUNTIME
            ):
                return self._one_row.run(features)
            if len(features) <= BATCH_ROWS:
                return dict(zip(wanted, session.run(wanted, {"features": features}), strict=True))
            parts = [
                session.run(wanted, {"features": features[first : first + BATCH_ROWS]})
                for first in range(0, len(features), BATCH_ROWS)
            ]
        except Exception as error:
            what = f"{self.backend} cannot run the graph ({_first_line(error)})"
            raise BundleError(self.bundle.where, what, "use another bundle") from error
        columns = zip(*parts, strict=True)
        return {n: np.concatenate(column) for n, column in zip(wanted, columns, strict=True)}

    def predict(self, features: NDArray[np.float32]) -> Predictions:
        """Return outputs and decisions for features of shape (n, n_features)."""
        return self.decided(self.outputs(features))

    def decided(self, outputs: Mapping[str, NDArray[np.float32]]) -> Predictions:
        """Return outputs with the decisions on them.

        Args:
            outputs: all of the graph's, as `outputs` returns them.
        """
        probability, days = outputs["failure_probability_30d"], outputs["days_to_failure"]
        flagged = probability >= self.bundle.threshold
        action = action_band(days[:, 1])
        bands = outputs["action_probabilities"]
        return Predictions(
            failure_probability_30d=probability,
            days_to_failure_p10=days[:, 0],
            days_to_failure_p50=days[:, 1],
            days_to_failure_p90=days[:, 2],
            confidence=bands[np.arange(len(bands)), action] * self._confidence_scales[action],
            cause=outputs["cause_probabilities"].argmax(axis=1),
            action=action,
            urgency=urgency_band(days[:, 1], flagged),
            flagged=flagged,
        )

    def check_golden(self) -> None:
        """Run the golden inputs.

        Raises:
            BundleError: when an output is not finite or not the expected one.
        """
        remedy = "use another bundle"
        try:
            golden = self.bundle.golden()
            outputs = self.outputs(golden.pop("features"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = f"its golden vectors are not readable ({error!r})"
            raise BundleError(self.bundle.where, what, remedy) from error
        if not set(OUTPUTS) == set(golden) <= set(outputs):
            what = f"its golden vectors are of {sorted(golden)}"
            raise BundleError(self.bundle.where, what, remedy)
        for name, expected in golden.items():
            if outputs[name].shape != expected.shape:
                what = f"golden output {name} has another shape"
                raise BundleError(self.bundle.where, what, remedy)
            close = np.isclose(outputs[name], expected, rtol=GOLDEN_TOLERANCE, atol=1e-5)
            if not (np.isfinite(outputs[name]).all() and close.all()):
                what = f"golden output {name} differs"
                remedy = "use another bundle, or another version of ONNX Runtime"
                raise BundleError(self.bundle.where, what, remedy)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
