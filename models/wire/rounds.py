"""What passes between server and devices in a federated round: the task down, the sum up.

The carrier is Flower (records of arrays and plain values); the names and checks are here, so that
server and device agree without importing each other. A reply holds one integer sum, which stream
and step it is for, and how many devices are in it: no loss, no number of rows, no figure of one
device.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from .plain_values import PlainValue, read_value

SCHEMA_VERSION: Final = 1

WEIGHTS_RECORD: Final = "weights"
"""Record of the task with one array, `FLAT_ARRAY`: float32, shape (n_weights,)."""
TASK_RECORD: Final = "task"
"""Record of the task with the plain values of `RoundTask`."""
SUM_RECORD: Final = "sum"
"""Record of the reply with one array, `FLAT_ARRAY`: int64, shape (n_weights,), on the grid; where
the clipping norm adapts, the sum of bits follows as one more entry."""
CONTRIBUTION_RECORD: Final = "contribution"
"""Record of the reply with the plain values of `Contribution`."""
DEVICES_RECORD: Final = "devices"
"""Record of the answer to a query, with the identifiers of the devices behind a node."""
FLAT_ARRAY: Final = "flat"
RECEIPT_MESSAGE: Final = "query.receipt"
"""Flower's type of the message that brings a release's receipt to the nodes that were invited."""
RECEIPT_RECORD: Final = "receipt"
"""Record of that message with the plain values of `ReleaseReceipt`; its answer is empty."""

_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class NodeFailure(StrEnum):
    """All that a node says of why it cannot answer; a text could hold readings or paths."""

    TASK_REFUSED = "task_refused"
    MISCONFIGURED = "misconfigured"
    STORE_UNUSABLE = "store_unusable"
    PART_MISSING = "part_missing"
    OUT_OF_MEMORY = "out_of_memory"
    OTHER = "other"


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
        proximal: μ of FedProx (Li et al. 2020, "Federated optimization in heterogeneous networks",
            equation 2): each step also descends μ/2 · ‖w − w_round‖², which holds several local
            steps back from drifting. It needs no row, so it costs no privacy; 0 is without. A
            device of before it was there trains without it.
    """

    steps: int = 1
    sampling_rate: float = 0.3
    expected_batch_size: int = 96
    learning_rate: float = 0.25
    least_rows: int = 180
    record_noise_multiplier: float = 1.25
    record_max_grad_norm: float = 1.0
    proximal: float = 0.0

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
        _require_at_least(0.0, proximal=self.proximal)
        if self.proximal * self.learning_rate > 1.0:
            raise ValueError(
                "proximal times learning_rate must be at most 1, or a step passes the weights that "
                f"it is held to; got {self.proximal:g} times {self.learning_rate:g}"
            )

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
        clipping_norm: C, to which each device clips its update; C_t where it adapts.
        cohort_size: n, places of the step over all nodes, and its divisor: so many devices are
            invited, or fewer where some have spent their lives, but never fewer than the policy's
            `min_cohort_size`.
        device_ids: Those of them behind this node.
        recipe: How each of them trains.
        policy: Signed envelope of the stream's policy, as JSON text; empty for simulated fleets.
        pseudonyms: Of the devices in this step, in the order of `device_ids`: under which their
            receipts, and all that is stored of them, stand. Empty where no receipt is asked for.
        has_norm_bit: Whether a device sends its update over C_t, and a bit that says whether it was
            clipped; said only where it is so, and the policy must say the same.
        deadline_s: Seconds after which the server waits for no reply; 0 where it does not say.
    """

    stream: str
    index: int
    clipping_norm: float
    cohort_size: int
    device_ids: tuple[str, ...]
    recipe: LocalRecipe
    policy: str = ""
    pseudonyms: tuple[str, ...] = ()
    has_norm_bit: bool = False
    deadline_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a task that no honest server sends."""
        _require_at_least(0, index=self.index, deadline_s=self.deadline_s)
        _require_at_least(1, cohort_size=self.cohort_size)
        _require_positive(clipping_norm=self.clipping_norm)
        if len(set(self.device_ids)) != len(self.device_ids):
            raise ValueError("device_ids must not name a device twice")
        if len(self.device_ids) > self.cohort_size:
            raise ValueError(
                f"device_ids must not outnumber cohort_size {self.cohort_size}, "
                f"got {len(self.device_ids)}"
            )
        if self.pseudonyms and len(self.pseudonyms) != len(self.device_ids):
            raise ValueError(
                f"pseudonyms must name each of {len(self.device_ids)} devices, "
                f"got {len(self.pseudonyms)}"
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
            "policy": self.policy,
            "pseudonyms": list(self.pseudonyms),
            **({"has_norm_bit": True} if self.has_norm_bit else {}),
            **({"deadline_s": self.deadline_s} if self.deadline_s else {}),
            **_plain_recipe(self.recipe),
        }

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "RoundTask":
        """Read a task; values that this version does not know are ignored.

        Raises:
            ValueError: A value is missing, of the wrong type or out of bounds.
        """
        return RoundTask(
            stream=read_value(values, "stream", str),
            index=read_value(values, "index", int),
            clipping_norm=read_value(values, "clipping_norm", float),
            cohort_size=read_value(values, "cohort_size", int),
            device_ids=tuple(read_value(values, "device_ids", list)),
            recipe=LocalRecipe(
                **{
                    field.name: read_value(
                        {**_OF_NEWER_RECIPES, **values}, field.name, type(field.default)
                    )
                    for field in fields(LocalRecipe)
                }
            ),
            policy=read_value({"policy": "", **values}, "policy", str),
            pseudonyms=tuple(read_value({"pseudonyms": [], **values}, "pseudonyms", list)),
            has_norm_bit=read_value({"has_norm_bit": False, **values}, "has_norm_bit", bool),
            deadline_s=read_value({"deadline_s": 0.0, **values}, "deadline_s", float),
        )


_OF_NEWER_RECIPES: Final[dict[str, Any]] = {"proximal": 0.0}
"""What tasks of earlier versions do not say of a recipe, and what they mean by that."""


def _plain_recipe(recipe: LocalRecipe) -> dict[str, PlainValue]:
    """Leave out what an earlier version does not know, where it says nothing."""
    values = asdict(recipe)
    return {
        name: value
        for name, value in values.items()
        if name not in _OF_NEWER_RECIPES or value != _OF_NEWER_RECIPES[name]
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a reply says beside its sum.

    Attributes:
        stream: Stream of the task that is answered.
        index: Step of the task that is answered.
        num_devices: Number of invited devices whose clipped updates are in the sum, zeros included.
        receipts: For each real device behind the node a line of `DeviceReceipt`; empty for blocks
            of simulated devices.
    """

    stream: str
    index: int
    num_devices: int
    receipts: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, PlainValue]:
        """Write the facts as flat plain values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "receipts": list(self.receipts)}

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "Contribution":
        """Read the facts.

        Raises:
            ValueError: A value is missing or of the wrong type.
        """
        return Contribution(
            stream=read_value(values, "stream", str),
            index=read_value(values, "index", int),
            num_devices=read_value(values, "num_devices", int),
            receipts=tuple(read_value({"receipts": [], **values}, "receipts", list)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReceipt:
    """What a device's own ledger says once it has debited a step.

    The server schedules by the larger of this and its own count. It has the same form whether the
    device took part, sat out or was refused by its ledger.

    Attributes:
        pseudonym: Of the device in this step, as the task gave it: 32 hexadecimal digits.
        participations: Steps that the device has debited in its life.
        mu_squared: Σ 1/σ² over them and over all else that it has debited.
        head: Hash of the last entry of its ledger.
    """

    pseudonym: str
    participations: int
    mu_squared: float
    head: str

    def __post_init__(self) -> None:
        """Refuse what no device's ledger can say."""
        if _PSEUDONYM.fullmatch(self.pseudonym) is None:
            raise ValueError(f"pseudonym must be 32 hex digits, got {self.pseudonym!r}"[:200])
        _require_at_least(0, participations=self.participations, mu_squared=self.mu_squared)
        if _DIGEST.fullmatch(self.head) is None:
            raise ValueError(f"head must be 64 hex digits, got {self.head!r}"[:200])

    def to_line(self) -> str:
        """Write the receipt as one line of canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_line(line: str) -> "DeviceReceipt":
        """Read a line; values that this version does not know are ignored.

        Raises:
            ValueError: It is no receipt.
        """
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("a receipt must be a JSON object")  # noqa: TRY004 - one kind of error
        return DeviceReceipt(
            pseudonym=read_value(values, "pseudonym", str),
            participations=read_value(values, "participations", int),
            mu_squared=read_value(values, "mu_squared", float),
            head=read_value(values, "head", str),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReceipt:
    """What the server hands to the invited devices once a step is released.

    Attributes:
        stream: Stream of the step.
        index: Step of the stream.
        entry: Signed envelope, as JSON text, of the line of the server's ledger that pays for it.
    """

    stream: str
    index: int
    entry: str

    def to_plain(self) -> dict[str, PlainValue]:
        """Write the receipt as flat plain values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "ReleaseReceipt":
        """Read a receipt; the signature is for the device to check.

        Raises:
            ValueError: A value is missing or of the wrong type.
        """
        return ReleaseReceipt(
            stream=read_value(values, "stream", str),
            index=read_value(values, "index", int),
            entry=read_value(values, "entry", str),
        )


def _require_at_least(bound: float, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= bound):
            raise ValueError(f"{name} must be at least {bound:g}, got {value}")


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be greater than 0, got {value}")
