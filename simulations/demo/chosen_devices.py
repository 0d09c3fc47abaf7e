"""Which six devices of the judged fleet run as agents, and at which moment.

Chosen by what the bundle in use says of them: two urgent, two soon, one healthy, and one that is
due while its owner sleeps; all on their first pack. An urgent one may have passed its end of life
unnoticed a few days before, where none is found that has not. The moment is the latest midnight at
which the fleet has them all, early enough that the simulation still shows what became of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from models.prediction import ACTION_EDGES_DAYS
from models.telemetry import SECONDS_PER_DAY

from ..run_report_parts import Expectation
from .scene import SceneError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.inference import Predictions, Predictor

    from .scene import JudgedFleet

WANTED = {
    Expectation.URGENT: 2,
    Expectation.SOON: 2,
    Expectation.QUIET_HOURS: 1,
    Expectation.HEALTHY: 1,
}
NUM_URGENT = WANTED[Expectation.URGENT]
NUM_DUE = sum(WANTED.values()) - WANTED[Expectation.HEALTHY]
LEAST_HISTORY_DAYS = 60
DAYS_TO_COME = 45
UNNOTICED_DAYS = 14
URGENT_DAYS, SOON_DAYS, HEALTHY_DAYS = ACTION_EDGES_DAYS


@dataclass(frozen=True, slots=True)
class ChosenDevice:
    """One device of the six.

    Attributes:
        position: in the judged fleet.
        device_id: its identifier.
        expectation: what it was chosen for.
    """

    position: int
    device_id: str
    expectation: Expectation


@dataclass(frozen=True, slots=True)
class Cast:
    """The six devices and their moment.

    Attributes:
        now: aware, UTC; the one simulated clock starts there.
        devices: in the order of `WANTED`.
    """

    now: datetime
    devices: tuple[ChosenDevice, ...]


@dataclass(frozen=True, slots=True)
class Moments:
    """What a bundle says of devices that could be chosen, one row a device and midnight.

    Attributes:
        as_of_s: int64, shape (n,).
        device: int, shape (n,), position in the fleet.
        days_p50: float32, shape (n,).
        flagged: bool, shape (n,).
        failed: bool, shape (n,), whether the battery has failed by then, which only the
            simulation knows.
    """

    as_of_s: NDArray[np.int64]
    device: NDArray[np.intp]
    days_p50: NDArray[np.float32]
    flagged: NDArray[np.bool_]
    failed: NDArray[np.bool_]

    def take(self, rows: NDArray[np.bool_]) -> Moments:
        """Return some of the rows."""
        return Moments(
            self.as_of_s[rows],
            self.device[rows],
            self.days_p50[rows],
            self.flagged[rows],
            self.failed[rows],
        )

    @property
    def urgent(self) -> NDArray[np.bool_]:
        """Which are expected to fail within a week."""
        return self.days_p50 < URGENT_DAYS

    @property
    def soon(self) -> NDArray[np.bool_]:
        """Which are due, but not urgent, and still work."""
        due = self.flagged | (self.days_p50 < SOON_DAYS)
        return due & ~self.urgent & ~self.failed

    @property
    def healthy(self) -> NDArray[np.bool_]:
        """Which have nothing to fear for long."""
        return ~self.flagged & (self.days_p50 >= HEALTHY_DAYS) & ~self.failed


def choose(fleet: JudgedFleet, predictor: Predictor) -> Cast:
    """Choose the six devices.

    Args:
        fleet: of devices that never train.
        predictor: of the bundle that devices run.

    Raises:
        SceneError: the bundle never finds two batteries due at once, or none healthy.
    """
    moments = _moments(fleet, predictor.predict(fleet.features))
    now_s = best_moment(moments)
    chosen = cast_of(moments.take(moments.as_of_s == now_s))
    ids = fleet.fleet.telemetry.device_ids
    return Cast(
        now=datetime.fromtimestamp(now_s, UTC),
        devices=tuple(
            ChosenDevice(position, ids[position], expectation) for position, expectation in chosen
        ),
    )


def best_moment(moments: Moments) -> int:
    """Return the latest midnight with the most of the devices that are wanted.

    Raises:
        SceneError: there is no midnight with two due devices and a healthy one.
    """
    midnights, of_row = np.unique(moments.as_of_s, return_inverse=True)

    def count(rows: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.bincount(of_row[rows], minlength=len(midnights))

    urgent, soon = count(moments.urgent), count(moments.soon)
    parts = np.minimum(urgent, NUM_URGENT) + np.minimum(soon, NUM_DUE - NUM_URGENT)
    working = np.minimum(count(moments.urgent & ~moments.failed), NUM_URGENT)
    rank = parts * (NUM_URGENT + 1) + working
    rank[(urgent + soon < 2) | (count(moments.healthy) < 1)] = -1
    if not len(rank) or rank.max() < 0:
        raise SceneError(
            "the bundle in use never finds two batteries due at once; use another --seed"
        )
    return int(midnights[np.flatnonzero(rank == rank.max())[-1]])


def cast_of(moments: Moments) -> list[tuple[int, Expectation]]:
    """Give each wanted part to a device, at one moment.

    Where there are fewer urgent ones, or fewer soon, others that are due take their place, after
    them healthy ones, and each is called what it is. The owner who sleeps has the last that is due.
    """
    urgent, soon = moments.urgent, moments.soon
    by_days = np.lexsort((moments.days_p50, moments.failed)).tolist()
    most_urgent = [row for row in by_days if urgent[row]]
    others = [row for row in by_days if soon[row]]
    due = [*most_urgent[:NUM_URGENT], *others, *most_urgent[NUM_URGENT:]][:NUM_DUE]
    rows = [(row, Expectation.URGENT if urgent[row] else Expectation.SOON) for row in due[:-1]]
    healthy = [(row, Expectation.HEALTHY) for row in by_days if moments.healthy[row]]
    rows += healthy[len(due) - sum(WANTED.values()) :]
    rows += [(row, Expectation.QUIET_HOURS) for row in due[-1:]]
    return [(int(moments.device[row]), expectation) for row, expectation in rows]


def _moments(fleet: JudgedFleet, predictions: Predictions) -> Moments:
    table, rows = fleet.table, fleet.judged
    device, as_of_s = table.device[rows], table.as_of_s[rows]
    outcomes = fleet.fleet.outcomes
    begins = table.pack_since_s[rows]
    failed_at_s = outcomes.failed_at_s[device]
    failed = failed_at_s <= as_of_s
    watched = outcomes.observed_until_s[device] > as_of_s
    unnoticed = failed & (as_of_s - failed_at_s <= UNNOTICED_DAYS * SECONDS_PER_DAY)
    old_enough = as_of_s - begins >= LEAST_HISTORY_DAYS * SECONDS_PER_DAY
    in_time = as_of_s <= outcomes.observed_until_s.max() - DAYS_TO_COME * SECONDS_PER_DAY
    return Moments(
        as_of_s=as_of_s,
        device=device,
        days_p50=predictions.days_to_failure_p50,
        flagged=predictions.flagged,
        failed=failed,
    ).take((watched | unnoticed) & old_enough & in_time)
