"""A reference fleet: a dataset with outcomes that is nobody's, on which rounds are looked at.

Every other device of it is for looks while a run goes on and for what is fitted afterwards; the
others judge the candidate. What was chosen on some devices must not be judged on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.errors import DatasetError
from models.featurize import featurize
from models.fleet_dataset import open_fleet
from models.telemetry import Outcomes
from models.training_rows import TrainingRows, first_packs, training_rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from models.fleet_dataset import Fleet

DEVICES_A_SLICE = 256


@dataclass(frozen=True, slots=True)
class ReferenceHalves:
    """The devices of a reference fleet, dealt into two halves.

    Attributes:
        calibrate: bool, shape (n_devices,): for looks and all that is fitted.
        judge: bool, shape (n_devices,), the others.
    """

    calibrate: NDArray[np.bool_]
    judge: NDArray[np.bool_]

    @staticmethod
    def of(num_devices: int) -> ReferenceHalves:
        """Deal devices in turn, in the order of the dataset."""
        calibrate = np.arange(num_devices) % 2 == 0
        return ReferenceHalves(calibrate, ~calibrate)


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """Rows of both halves of a reference fleet, by the true outcomes.

    Attributes:
        calibrate: for looks and all that is fitted.
        judge: of the other devices.
    """

    calibrate: TrainingRows
    judge: TrainingRows

    @staticmethod
    def of(directory: Path) -> ReferenceRows:
        """Read a fleet dataset.

        Args:
            directory: of the dataset.

        Raises:
            DatasetError: it cannot be read, has no outcomes, or no failure in one of the halves.
        """
        fleet = open_fleet(directory)
        if not fleet.has_outcomes():
            remedy = "name a fleet with outcomes.parquet, as fedcell simulate fleet makes it"
            raise DatasetError(directory, "has no outcomes to look at", remedy)
        rows = _rows_of(fleet)
        halves = ReferenceHalves.of(len(fleet.profiles))
        calibrate, judge = (
            rows.take(half[rows.device]) for half in (halves.calibrate, halves.judge)
        )
        if not all((part.event_bin >= 0).any() for part in (calibrate, judge)):
            remedy = "name a larger one, or one with a longer history"
            raise DatasetError(directory, "holds no failure in one of its halves", remedy)
        return ReferenceRows(calibrate, judge)


def _rows_of(fleet: Fleet) -> TrainingRows:
    """Featurise devices in slices, so that memory stays small; `device` counts over all."""
    telemetry, outcomes = fleet.telemetry(), fleet.outcomes()
    parts = []
    for start in range(0, len(fleet.profiles), DEVICES_A_SLICE):
        part = slice(start, min(start + DEVICES_A_SLICE, len(fleet.profiles)))
        table = featurize(telemetry.devices(part.start, part.stop), fleet.profiles.take(part))
        packs = first_packs(
            Outcomes(
                device_ids=outcomes.device_ids[part],
                observed_until_s=outcomes.observed_until_s[part],
                failed_at_s=outcomes.failed_at_s[part],
                primary_cause=outcomes.primary_cause[part],
            )
        )
        rows = training_rows(table, packs, max_rows=None, least_rows=1)
        parts.append(replace(rows, device=rows.device + start))
    return TrainingRows(
        device=np.concatenate([rows.device for rows in parts]),
        features=np.concatenate([rows.features for rows in parts]),
        exposure=np.concatenate([rows.exposure for rows in parts]),
        event_bin=np.concatenate([rows.event_bin for rows in parts]),
        cause=np.concatenate([rows.cause for rows in parts]),
    )
