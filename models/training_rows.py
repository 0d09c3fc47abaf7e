"""Training rows: one a device and day, made on the device from features and confirmed outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .hazard_bins import exposure
from .telemetry import CAUSES, SECONDS_PER_DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .featurize import FeatureTable
    from .telemetry import Outcomes

MAX_ROWS = 365
LEAST_ROWS = 180


@dataclass(frozen=True, slots=True)
class PackOutcomes:
    """What became of each battery pack, one row a pack, sorted by device and pack.

    Attributes:
        device: int, shape (n,): index of the device.
        pack: int, shape (n,): 0 for the device's first pack.
        known_until_s: int64, shape (n,): the pack is known not to have failed before this moment
            (or before its failure).
        failed_at_s: float64, shape (n,): failure, NaN = censored.
        cause: int8, shape (n,): index into `CAUSES`, −1 = not known.
    """

    device: NDArray[np.intp]
    pack: NDArray[np.intp]
    known_until_s: NDArray[np.int64]
    failed_at_s: NDArray[np.float64]
    cause: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Rows to learn from, sorted by device and day.

    Attributes:
        device: int, shape (n,): index of the device.
        features: float32, shape (n, n_features), raw values; NaN = missing.
        exposure: float32, shape (n, n_bins): share of each hazard bin spent at risk.
        event_bin: int8, shape (n,): bin of the failure, −1 = censored.
        cause: int8, shape (n,): index into `CAUSES`, −1 = unknown or no failure.
    """

    device: NDArray[np.intp]
    features: NDArray[np.float32]
    exposure: NDArray[np.float32]
    event_bin: NDArray[np.int8]
    cause: NDArray[np.int8]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.event_bin)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> TrainingRows:
        """Return some of the rows."""
        return TrainingRows(
            self.device[rows],
            self.features[rows],
            self.exposure[rows],
            self.event_bin[rows],
            self.cause[rows],
        )

    @staticmethod
    def concatenate(tables: list[TrainingRows]) -> TrainingRows:
        """Stack rows; devices are numbered on, so that two tables never share one."""
        first, device = 0, []
        for table in tables:
            device.append(table.device + first)
            first += int(table.device.max(initial=-1)) + 1
        return TrainingRows(
            np.concatenate(device),
            np.concatenate([table.features for table in tables]),
            np.concatenate([table.exposure for table in tables]),
            np.concatenate([table.event_bin for table in tables]),
            np.concatenate([table.cause for table in tables]),
        )


def training_rows(
    table: FeatureTable,
    outcomes: PackOutcomes,
    *,
    max_rows: int | None = MAX_ROWS,
    least_rows: int = LEAST_ROWS,
) -> TrainingRows:
    """Join features with what became of the pack.

    A row enters when its features are ok and it lies before the pack's failure and before
    `known_until_s`. Rows without a minute at risk are left out.

    Args:
        table: features, one row a device and day.
        outcomes: of the packs in `table`; packs that are not listed teach nothing.
        max_rows: keep the rows of as many days up to each device's newest row; None keeps all. A
            row is a day, so no device keeps more rows than that, and one with gaps keeps fewer.
        least_rows: devices with fewer in these days teach nothing.
    """
    key = outcomes.device.astype(np.int64) << 16 | outcomes.pack
    wanted = table.device.astype(np.int64) << 16 | table.pack
    position = np.searchsorted(key, wanted)
    position = np.minimum(position, max(len(key) - 1, 0))
    listed = key[position] == wanted if len(key) else np.zeros(len(wanted), bool)
    position = np.where(listed, position, 0)
    if not listed.any():
        keep = np.zeros(0, np.intp)
    else:
        failed_at = outcomes.failed_at_s[position]
        end = np.where(np.isfinite(failed_at), failed_at, outcomes.known_until_s[position])
        keep = np.flatnonzero(listed & table.is_ok() & (table.as_of_s < end))
    keep = _latest(keep, table, max_rows, least_rows)
    position = position[keep]
    failed_at = outcomes.failed_at_s[position]
    event = np.isfinite(failed_at)
    end = np.where(event, failed_at, outcomes.known_until_s[position])
    share, event_bin = exposure((end - table.as_of_s[keep]) / SECONDS_PER_DAY, event)
    return TrainingRows(
        device=table.device[keep],
        features=table.features[keep],
        exposure=share,
        event_bin=event_bin,
        cause=np.where(event, outcomes.cause[position], -1).astype(np.int8),
    )


def _latest(
    keep: NDArray[np.intp], table: FeatureTable, max_days: int | None, least_rows: int
) -> NDArray[np.intp]:
    if len(keep) == 0:
        return keep
    if max_days is not None:
        of_row = table.device[keep]
        newest_s = table.as_of_s[keep][np.cumsum(np.bincount(of_row)) - 1]
        keep = keep[table.as_of_s[keep] > newest_s[of_row] - max_days * SECONDS_PER_DAY]
    of_row = table.device[keep]
    return keep[np.bincount(of_row)[of_row] >= least_rows]


def first_packs(outcomes: Outcomes) -> PackOutcomes:
    """Return the outcomes of a fleet dataset as outcomes of each device's first pack."""
    return PackOutcomes(
        device=np.arange(len(outcomes.device_ids)),
        pack=np.zeros(len(outcomes.device_ids), np.intp),
        known_until_s=outcomes.observed_until_s,
        failed_at_s=outcomes.failed_at_s,
        cause=np.array([cause_index(cause) for cause in outcomes.primary_cause], np.int8),
    )


def cause_index(cause: object) -> int:
    """Return the index of a cause in `CAUSES`, −1 where it is not one of them."""
    return CAUSES.index(str(cause)) if cause in CAUSES else -1
