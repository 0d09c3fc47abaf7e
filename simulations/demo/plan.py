"""What decides a run of the demo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from server.broker import BrokerKind

LEAST_DEVICES = 20
LEAST_JUDGED = 20
MAX_SEED = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """Everything that decides a run of the demo, apart from the noise.

    The noise of the private rounds comes from the operating system's entropy, as it would in
    production: two runs of one plan differ by it.

    Attributes:
        devices: devices in the rounds.
        judged_devices: devices of the same kind that never train; models are judged on them, and
            the six agents are some of them.
        reference_devices: devices of the simulated reference fleet, on which calibration, threshold
            and gate are decided.
        days: length of each simulation; a device needs 208 to train (28 of history, 180 rows).
        rounds: T, each inviting every device.
        epsilon: ε_release.
        delta: its δ.
        seed: of the fleets.
        broker: which broker; None takes Mosquitto where installed, else the embedded one.
        cells: folder of real ageing cells; it may be missing. None leaves them out.
        workers: processes that train; None takes one a core.

    Raises:
        ValueError: a value with which there is nothing to show.
    """

    devices: int = 600
    judged_devices: int = 300
    reference_devices: int = 400
    days: int = 400
    rounds: int = 10
    epsilon: float = 2.0
    delta: float = 1e-6
    seed: int = 7
    broker: BrokerKind | None = None
    cells: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse values with which there is nothing to show."""
        for name, least in (
            ("devices", LEAST_DEVICES),
            ("judged_devices", LEAST_JUDGED),
            ("reference_devices", LEAST_JUDGED),
            ("days", 240),
            ("rounds", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ValueError(f"epsilon must be above 0, got {self.epsilon}")
        if not 0 < self.delta <= 1e-5:
            raise ValueError(f"delta must lie in 0 to 1e-05, above 0, got {self.delta}")
        if not 0 <= self.seed < MAX_SEED:
            raise ValueError(f"seed must lie in 0 to {MAX_SEED - 1}, got {self.seed}")
