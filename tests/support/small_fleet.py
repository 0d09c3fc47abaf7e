"""A fleet of made-up rows in the form of a study's fleet, made in milliseconds."""

from dataclasses import dataclass
from itertools import pairwise

from models.closed_form_batches import ScaledRows
from simulations.quality_fleet import StudyFleetPlan
from tests.support.made_up_rows import made_up_rows


@dataclass
class SmallFleet:
    """Devices device-0 to device-(n−1) with as many rows each, and two held-out devices.

    Attributes:
        num_devices: that train.
        num_rows: of each.
    """

    num_devices: int
    num_rows: int

    def __post_init__(self):
        self.plan = StudyFleetPlan(num_devices=self.num_devices, num_days=self.num_rows)
        self.raw = made_up_rows(self.num_rows, num_devices=self.num_devices, seed=4)
        self.held_out = made_up_rows(self.num_rows, num_devices=2, seed=5)
        self.device_ids = tuple(f"device-{number}" for number in range(self.num_devices))
        self.rows = ScaledRows.of(self.raw)
        ends = range(0, len(self.rows) + 1, self.num_rows)
        self.spans = list(pairwise(ends))
