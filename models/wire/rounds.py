"""What passes between server and devices in a federated round: the task down, the sum up.

The carrier is Flower (records of arrays and plain values); the names and checks are here, so that
server and device agree without importing each other. A reply holds one integer sum, which stream
and step it is for, and how many devices are in it: no loss, no number of rows, no figure of one
device.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

SCHEMA_VERSION: Final = 1

WEIGHTS_RECORD: Final = "weights"
"""Record of the task with one array, `FLAT_ARRAY`: float32, shape (n_weights,)."""
TASK_RECORD: Final = "task"
"""Record of the task with the plain values of `RoundTask`."""
SUM_RECORD: Final = "sum"
"""Record of the reply with one array, `FLAT_ARRAY`: int64, shape (n_weights,), on the grid."""
CONTRIBUTION_RECORD: Final = "contribution"
"""Record of the reply with the plain values of `Contribution`."""
DEVICES_RECORD: Final = "devices"
"""Record of the answer to a query, with the identifiers of the devices behind a node."""
FLAT_ARRAY: Final = "flat"


class NodeFailure(StrEnum):
    """All that a node says of why it cannot answer; a text could hold readings or paths."""

    TASK_REFUSED = "task_refused"
    MISCONFIGURED = "misconfigured"
    STORE_UNUSABLE = "store_unusable"
    PART_MISSING = "part_missing"
    OUT_OF_MEMORY = "out_of_memory"
    OTHER = "other"


PlainValue = str | int | float | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRecipe:
    """How one device trains in one step of a stream; every number is public.

    The default is one large step. The many small steps of usual federated averaging drift: all rows
    of a failing device share one target, and after a few steps its update says little about the
    fleet. One step is the gradient itself, costs a fifth of five, and at one ε_record drowns less
    in noise on rows (over 24 participations 7.3 at δ = 1e-5, five steps of rate 0.1 with σ_r = 1:
    7.7).

    Attributes:
        steps: Number of SGD steps.
        sampling_rate: Probability with which each training row enters a step (Poisson).
        expected_batch_size: Divisor of a step's gradient sum; never the private number of rows.
        learning_rate: Of plain SGD, on the mean over `expected_batch_size`.
        least_rows: A device with fewer training rows sits out.
        record_noise_multiplier: σ_r of record-level DP-SGD; 0 switches it off.
        record_max_grad_norm: Bound on the ℓ2 norm of one row's gradient, where it is on.
    """

    steps: int = 1
    sampling_rate: float = 0.3
    expected_batch_size: int = 96
    learning_rate: float = 0.25
    least_rows: int = 180
    record_noise_multiplier: float = 1.25
    record_max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be trained with."""
        _require_at_least(1, steps=self.steps, expected_batch_size=self.expected_batch_size)
        _require_at_least(1, least_rows=self.least_rows)
        _require_at_least(0.0, record_noise_multiplier=self.record_noise_multiplier)
        _require_positive(
            learning_rate=self.learning_rate, record_max_grad_norm=self.record_max_grad_norm
        )
        if not 0.0 < self.sampling_rate <= 1.0:
            raise ValueError(f"sampling_rate must lie in (0, 1], got {self.sampling_rate}")

    @property
    def is_record_private(self) -> bool:
        """Whether steps are clipped and noised by row."""
        return self.record_noise_multiplier > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTask:
    """What the devices behind one node are asked to do in one step of a stream.

    Attributes:
        stream: Identifier of the run of rounds.
        index: Step of the stream, counted from 0.
        clipping_norm: C, to which each device clips its update.
        cohort_size: n, number of devices invited over all nodes.
        device_ids: Those of them behind this node.
        recipe: How each of them trains.
    """

    stream: str
    index: int
    clipping_norm: float
    cohort_size: int
    device_ids: tuple[str, ...]
    recipe: LocalRecipe

    def __post_init__(self) -> None:
        """Refuse a task that no honest server sends."""
        _require_at_least(0, index=self.index)
        _require_at_least(1, cohort_size=self.cohort_size)
        _require_positive(clipping_norm=self.clipping_norm)
        if len(set(self.device_ids)) != len(self.device_ids):
            raise ValueError("device_ids must not name a device twice")
        if len(self.device_ids) > self.cohort_size:
            raise ValueError(
                f"device_ids must not outnumber cohort_size {self.cohort_size}, "
                f"got {len(self.device_ids)}"
            )

    def to_plain(self) -> dict[str, PlainValue]:
        """Write the task as flat plain values, as Flower's records hold them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "stream": self.stream,
            "index": self.index,
            "clipping_norm": self.clipping_norm,
            "cohort_size": self.cohort_size,
            "device_ids": list(self.device_ids),
            **asdict(self.recipe),
        }

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "RoundTask":
        """Read a task; values that this version does not know are ignored.

        Raises:
            ValueError: A value is missing, of the wrong type or out of bounds.
        """
        return RoundTask(
            stream=_read(values, "stream", str),
            index=_read(values, "index", int),
            clipping_norm=_read(values, "clipping_norm", float),
            cohort_size=_read(values, "cohort_size", int),
            device_ids=tuple(_read(values, "device_ids", list)),
            recipe=LocalRecipe(
                **{
                    field.name: _read(values, field.name, type(field.default))
                    for field in fields(LocalRecipe)
                }
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a reply says beside its sum.

    Attributes:
        stream: Stream of the task that is answered.
        index: Step of the task that is answered.
        num_devices: Number of invited devices whose clipped updates are in the sum, zeros included.
    """

    stream: str
    index: int
    num_devices: int

    def to_plain(self) -> dict[str, PlainValue]:
        """Write the facts as flat plain values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "Contribution":
        """Read the facts.

        Raises:
            ValueError: A value is missing or of the wrong type.
        """
        return Contribution(
            stream=_read(values, "stream", str),
            index=_read(values, "index", int),
            num_devices=_read(values, "num_devices", int),
        )


def _read(values: Mapping[str, Any], name: str, kind: type) -> Any:
    value = values.get(name)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} must be {kind.__name__}, got {value!r}"[:200])
    return value


def _require_at_least(bound: float, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= bound):
            raise ValueError(f"{name} must be at least {bound:g}, got {value}")


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be greater than 0, got {value}")
