"""Looks at weights on data that is not the devices': a reference fleet, simulated devices held out.

Devices report no loss and no metric. What a progress bar, a watcher or a learning curve shows comes
from here, and so does the figure by which a run stops early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.calibration import Calibration
from models.metrics import average_precision, roc_auc
from models.training.central import as_batch
from models.training.local_epochs import LocalNetwork
from models.training.losses import batch_loss
from models.training.outputs import numpy_outputs
from models.training.recipe import soon_labels

from .early_stop import REFERENCE_QUALITY

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._label, self._known = soon_labels(self._rows)

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


def looks_at(
    held_out: TrainingRows | None, *, reference: TrainingRows | None
) -> Callable[[NDArray[np.float32]], dict[str, float | None]] | None:
    """Return what looks at weights after a round; None where there is nothing to look at.

    Args:
        held_out: rows of simulated devices that never train; may be empty or None.
        reference: rows of a public fleet, by which a run may stop early; None looks at none.
    """
    part = None if held_out is None or len(held_out) == 0 else HeldOutPart(held_out)
    public = None if reference is None else HeldOutPart(reference)
    if part is None and public is None:
        return None

    def look(weights: NDArray[np.float32]) -> dict[str, float | None]:
        nothing = dict.fromkeys(("loss", "average_precision", "auc", "prevalence"))
        seen = {**nothing} if part is None else part.metrics(weights)
        if public is not None:
            seen[REFERENCE_QUALITY] = public.metrics(weights)["average_precision"]
        return seen

    return look
