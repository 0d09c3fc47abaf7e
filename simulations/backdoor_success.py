"""How often a trigger gets its way with a model: on held-out rows, with and without the pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.calibration import Calibration
from models.metrics import best_f1_threshold
from models.training.local_epochs import LocalNetwork
from models.training.outputs import numpy_outputs
from models.training.recipe import soon_labels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.training_rows import TrainingRows

    from .fleet_faults import Trigger

EVERY_ROWS: Final = 5
"""Of held-out rows each fifth is looked at."""


class TriggeredPart:
    """Held-out rows as they are and with a trigger.

    Args:
        rows: of devices that never train.
        trigger: the pattern; what it claims does not matter here.
        every_rows: keep each n-th row.
    """

    def __init__(
        self, rows: TrainingRows, trigger: Trigger, *, every_rows: int = EVERY_ROWS
    ) -> None:
        some = rows.take(slice(None, None, every_rows))
        label, known = soon_labels(some)
        self._label = label[known]
        self._plain = some.features[known]
        self._stamped = trigger.stamped(self._plain)
        self._network = LocalNetwork(learning_rate=1.0)

    def success(self, weights: NDArray[np.float32]) -> dict[str, float]:
        """Return how often the trigger turns a model's answer.

        A row is flagged from the score that gives the best F1 on the rows without the pattern.

        Args:
            weights: float32, shape (n_weights,).

        Returns:
            `false_alarm`: of the rows that do not fail within 30 days and are not flagged, the
            share that the trigger makes flagged; `hidden_failure`: of the rows that fail within 30
            days and are flagged, the share that it makes not flagged; 0 where there is no such row.
        """
        self._network.load(weights)
        plain, stamped = self._scores(self._plain), self._scores(self._stamped)
        threshold = best_f1_threshold([(self._label, plain)])
        was_flagged, is_flagged = plain >= threshold, stamped >= threshold
        return {
            "false_alarm": _share(is_flagged, among=~self._label & ~was_flagged),
            "hidden_failure": _share(~is_flagged, among=self._label & was_flagged),
        }

    def _scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs = numpy_outputs(self._network.network, Calibration(), features)
        scores: NDArray[np.float32] = outputs["failure_probability_30d"]
        return scores


def _share(what: NDArray[np.bool_], *, among: NDArray[np.bool_]) -> float:
    return float(what[among].mean()) if among.any() else 0.0
