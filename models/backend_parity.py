"""How far the NumPy backend and ONNX Runtime are apart on one bundle: the conformance of a release.

The rows are made from the feature specification alone, so any machine compares on the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .feature_spec import FEATURES
from .inference import Predictor
from .numpy_backend import NumpySession

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle

TOLERANCE: Final = 1e-5
NUM_ROWS: Final = 512
SEED: Final = 20_260_101
_AWKWARD: Final = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e30, -1e30, 3.4e38, -3.4e38)


@dataclass(frozen=True, slots=True)
class BackendParity:
    """The largest differences between two backends.

    Attributes:
        probability: of any probability, absolute.
        days: of any number of days, relative.
        num_rows: how many rows were compared.
    """

    probability: float
    days: float
    num_rows: int

    @property
    def is_equal(self) -> bool:
        """Say whether both lie within the tolerance of a release."""
        return self.probability <= TOLERANCE and self.days <= TOLERANCE


def parity_rows(num_rows: int = NUM_ROWS, *, seed: int = SEED) -> NDArray[np.float32]:
    """Return rows within the features' ranges, beyond them, missing, and of awkward numbers.

    Returns:
        float32, shape (num_rows, n_features).
    """
    rng = np.random.default_rng(seed)
    low, high = np.array([(f.low, f.high) for f in FEATURES], np.float64).T
    rows = low + (high - low) * rng.uniform(-0.2, 1.2, (num_rows, len(FEATURES)))
    share = rng.choice([0.0, 0.0, 0.1, 0.5, 1.0], (num_rows, 1))
    odd = rng.random(rows.shape) < share
    rows[odd] = rng.choice(np.array(_AWKWARD), int(odd.sum()))
    return np.asarray(rows, np.float32)


def backend_parity(bundle: Bundle, rows: NDArray[np.float32] | None = None) -> BackendParity:
    """Run a bundle in both backends.

    Args:
        bundle: any that passed the gate.
        rows: float32, shape (n, n_features); None takes `parity_rows()`.

    Raises:
        BundleError: a backend refuses the graph.
        ModuleNotFoundError: ONNX Runtime is not installed on this machine.
    """
    features = parity_rows() if rows is None else rows
    expected = Predictor(bundle).outputs(features)
    session = NumpySession(bundle.model_bytes)
    names = [output.name for output in session.get_outputs()]
    probability = days = 0.0
    for name, found in zip(names, session.run(names, {"features": features}), strict=True):
        wanted = expected[name].astype(np.float64)
        difference = _difference(found, wanted)
        if name == "days_to_failure":
            days = float((difference / np.maximum(np.abs(wanted), 1e-6)).max(initial=0.0))
        else:
            probability = max(probability, float(difference.max(initial=0.0)))
    return BackendParity(probability, days, len(features))


def _difference(found: NDArray[np.float32], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |found - wanted|: 0 where both are the same infinity or no number, else infinite."""
    is_same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        difference = np.where(is_same, 0.0, np.abs(found - wanted))
    return np.where(np.isnan(difference), np.inf, difference)
