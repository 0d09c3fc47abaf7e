"""Looks at weights on a held-out part of a simulated fleet, centrally.

Devices report no loss and no metric. What a progress bar or a learning curve shows comes from
simulated or public data that is not the devices'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.calibration import Calibration
from models.metrics import average_precision, roc_auc
from models.prediction import HORIZON_DAYS
from models.training.central import as_batch
from models.training.local_epochs import LocalNetwork
from models.training.losses import batch_loss
from models.training.outputs import bins_until, numpy_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.training_rows import TrainingRows


class HeldOutPart:
    """Held-out rows, thinned so that a look at them takes a fraction of a round.

    Args:
        rows: of devices that never train.
        every_days: keep each n-th row; a week apart they say nearly as much.
    """

    def __init__(self, rows: TrainingRows, *, every_days: int = 7) -> None:
        self._rows = rows.take(slice(None, None, every_days))
        self._batch = as_batch(self._rows)
        self._network = LocalNetwork(learning_rate=1.0)
        month = bins_until(HORIZON_DAYS)
        event_bin = self._rows.event_bin
        self._label = (event_bin >= 0) & (event_bin < month)
        lived = np.where(event_bin >= 0, event_bin >= month, self._rows.exposure[:, month - 1] >= 1)
        self._known = self._label | lived

    def __len__(self) -> int:
        """Return the number of rows that are looked at."""
        return len(self._rows)

    def metrics(self, weights: NDArray[np.float32]) -> dict[str, float | None]:
        """Return loss, average precision, AUC and prevalence of a failure within 30 days.

        Args:
            weights: float32, shape (n_weights,).
        """
        self._network.load(weights)
        outputs = numpy_outputs(self._network.network, Calibration(), self._rows.features)
        score = outputs["failure_probability_30d"][self._known]
        label = self._label[self._known]
        loss = float(batch_loss(self._network.network, self._batch).detach())
        return {
            "loss": loss if np.isfinite(loss) else None,
            "average_precision": average_precision(label, score),
            "auc": roc_auc(label, score),
            "prevalence": float(label.mean()) if len(label) else None,
        }
