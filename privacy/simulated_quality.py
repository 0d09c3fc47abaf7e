"""What simulated rounds under noise came to: measured runs, and which of them speak for a plan.

The runs stand in `simulated_quality.json`, which `python -m simulations.planned_quality` writes. A
run speaks for a plan of about as many rounds, on the same network, whose updates stand out from the
noise at least as much. Nothing is interpolated: where no run speaks, none does.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

FILE: Final = "simulated_quality.json"
_AS_MANY_ROUNDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """One measured setting, several seeds; figures on devices that never train.

    Attributes:
        devices: that trained.
        weights: of the network.
        num_rounds: T.
        cohort_size: n.
        participations: k.
        separation: b.
        bands: p.
        noise_multiplier: σ.
        epsilon: ε_release of the updates alone, at `delta`.
        delta: its δ.
        record_noise_multiplier: σ_r of record-level training, 0 = off.
        signal_to_noise: T·n / (σ·E(T, p)·√weights), as a plan has it.
        start_auc: of the weights that all seeds start from, one a seed.
        noiseless_auc: after the last round without noise on the sum, one a seed.
        private_auc: after the last round with it, one a seed.
        start_average_precision: likewise.
        noiseless_average_precision: likewise.
        private_average_precision: likewise.
        prevalence: share of windows that fail within 30 days.
        source: command or document that made it.
    """

    devices: int
    weights: int
    num_rounds: int
    cohort_size: int
    participations: int
    separation: int
    bands: int
    noise_multiplier: float
    epsilon: float
    delta: float
    record_noise_multiplier: float
    signal_to_noise: float
    start_auc: tuple[float, ...]
    noiseless_auc: tuple[float, ...]
    private_auc: tuple[float, ...]
    start_average_precision: tuple[float, ...]
    noiseless_average_precision: tuple[float, ...]
    private_average_precision: tuple[float, ...]
    prevalence: float
    source: str

    def __post_init__(self) -> None:
        """Refuse seeds that do not go together, and figures that are none."""
        per_seed = [value for value in asdict(self).values() if isinstance(value, tuple)]
        if len({len(value) for value in per_seed}) != 1 or not per_seed[0]:
            raise ValueError("each figure must have one value a seed")
        if not all(math.isfinite(number) for value in per_seed for number in value):
            raise ValueError("figures must be finite")

    @property
    def gain_kept(self) -> float:
        """Median over seeds of the private run's gain in AUC over the noiseless run's."""
        pairs = zip(self.start_auc, self.noiseless_auc, self.private_auc, strict=True)
        return statistics.median(
            (private - start) / (free - start) for start, free, private in pairs
        )

    def to_json(self) -> dict[str, Any]:
        """Return the run as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "SimulatedRun":
        """Read a run."""
        fields: dict[str, Any] = {
            name: tuple(one) if isinstance(one, list) else one for name, one in value.items()
        }
        return SimulatedRun(**fields)


@lru_cache(maxsize=1)
def simulated_runs() -> tuple[SimulatedRun, ...]:
    """The measured runs that ship with this version."""
    text = (files("privacy") / FILE).read_text(encoding="utf-8")
    return tuple(SimulatedRun.from_json(value) for value in json.loads(text)["runs"])


def run_that_speaks_for(
    runs: Sequence[SimulatedRun], *, weights: int, num_rounds: int, signal_to_noise: float
) -> SimulatedRun | None:
    """Return the run nearest to a plan whose noise was not less, or None.

    Args:
        runs: measured.
        weights: of the plan's network.
        num_rounds: T of the plan; a run may have half as many to twice as many.
        signal_to_noise: of the plan.
    """
    speaking = [
        run
        for run in runs
        if run.weights == weights
        and num_rounds / _AS_MANY_ROUNDS <= run.num_rounds <= num_rounds * _AS_MANY_ROUNDS
        and run.signal_to_noise <= signal_to_noise * (1 + 1e-9)
    ]
    return max(speaking, key=lambda run: run.signal_to_noise, default=None)
