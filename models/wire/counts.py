"""Counts that devices are asked for: the question down, one vector of whole numbers up.

A question fixes everything that shapes the answer: which counts, at which moment, in which bins.
So every answer has the same public shape, whatever the device holds, and its ℓ2 norm is bounded by
the question alone. A device that has nothing to say, sat out or was refused by its ledger answers
zeros of that shape.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from ..feature_spec import FEATURE_NAMES
from ..telemetry import SECONDS_PER_DAY
from .plain_values import PlainValue, read_value

SCHEMA_VERSION: Final = 1

COUNTS_QUERY: Final = "counts"
"""Name of the query, as Flower routes it: a message of type `query.counts`."""
QUESTION_RECORD: Final = "question"
"""Record of the query with the plain values of `CountTask`."""
COUNTS_RECORD: Final = "counts"
"""Record of the answer with one array, `rounds.FLAT_ARRAY`: int64, shape (question.size,)."""
COUNTED_RECORD: Final = "counted"
"""Record of the answer with the plain values of `Counted`."""

PROBABILITY: Final = "failure_probability_30d"
"""Name of the bins of what the model predicts; the others are features."""
MOST_COUNTS: Final = 4096
"""Numbers in one answer, at most."""


class CountKind(StrEnum):
    """What is counted.

    - `evaluation`: the model's probability in bins, by what became of the device within the
      horizon; one moment a device, so one number of the answer is 1.
    - `similar_devices`: a segment in bins of several features, by whether the device failed within
      the horizon; likewise one number is 1.
    - `drift`: each feature in bins of its own, and one bin for missing; one number a feature is 1.
    """

    EVALUATION = "evaluation"
    SIMILAR_DEVICES = "similar_devices"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of one value: below the first edge, from edge to edge, from the last on.

    Attributes:
        name: a feature, or `PROBABILITY`.
        edges: ascending, each opens a bin.
    """

    name: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse bins that are none."""
        if self.name != PROBABILITY and self.name not in FEATURE_NAMES:
            raise ValueError(f"bins of {self.name[:60]!r}: no such feature")
        if not self.edges or not all(math.isfinite(edge) for edge in self.edges):
            raise ValueError(f"edges of {self.name} must be finite and at least one")
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges of {self.name} must ascend, got {self.edges}")

    @property
    def size(self) -> int:
        """Number of bins."""
        return len(self.edges) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CountQuestion:
    """What is counted, at which moment, in which bins; all of it public.

    Attributes:
        kind: which counts.
        as_of_s: the moment, a UTC midnight in seconds since the epoch: no later reading is looked
            at for features, and only later ones decide what became of the device.
        horizon_days: what "failed within" means; 0 where outcomes do not count.
        model_version: the model whose predictions are counted; "" where none is run. A device with
            another model answers zeros.
        bins: of the probability (evaluation), of the features that make a segment (similar
            devices), or of each value that is watched (drift).
    """

    kind: CountKind
    as_of_s: int
    bins: tuple[Bins, ...]
    horizon_days: int = 0
    model_version: str = ""

    def __post_init__(self) -> None:
        """Refuse a question whose answer has no bound, no use or no end."""
        if self.as_of_s < 0 or self.as_of_s % SECONDS_PER_DAY:
            raise ValueError(f"as_of_s must be a UTC midnight, got {self.as_of_s}")
        names = [one.name for one in self.bins]
        if not names or len(set(names)) != len(names):
            raise ValueError("bins must name at least one value, and each once")
        has_outcome = self.kind is not CountKind.DRIFT
        if has_outcome != (self.horizon_days > 0):
            raise ValueError(
                f"horizon_days must be {'above 0' if has_outcome else '0'} for {self.kind.value}, "
                f"got {self.horizon_days}"
            )
        if self.kind is CountKind.EVALUATION and names != [PROBABILITY]:
            raise ValueError("an evaluation has the bins of the probability alone")
        if (PROBABILITY in names) != bool(self.model_version):
            raise ValueError("model_version must be named exactly where a prediction is counted")
        if self.size > MOST_COUNTS:
            raise ValueError(f"an answer holds at most {MOST_COUNTS} numbers, got {self.size}")

    @property
    def size(self) -> int:
        """Numbers in an answer."""
        if self.kind is CountKind.DRIFT:
            return sum(one.size + 1 for one in self.bins)
        return 2 * math.prod(one.size for one in self.bins)

    @property
    def sensitivity_squared(self) -> int:
        """The square of the greatest ℓ2 norm of one device's answer: how many numbers are 1.

        Replacing a device's answer by zeros moves the sum by at most its root.
        """
        return len(self.bins) if self.kind is CountKind.DRIFT else 1

    def to_text(self) -> str:
        """Return the question as JSON, the same text for the same question."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def from_text(text: str) -> "CountQuestion":
        """Read a question.

        Raises:
            ValueError: it is none, or not one that this version can answer.
        """
        try:
            fields = json.loads(text)
            fields["kind"] = CountKind(fields["kind"])
            fields["bins"] = tuple(
                Bins(str(one["name"]), tuple(float(edge) for edge in one["edges"]))
                for one in fields["bins"]
            )
            for name, kind in (("as_of_s", int), ("horizon_days", int), ("model_version", str)):
                if type(fields[name]) is not kind:
                    raise ValueError(f"{name} must be {kind.__name__}, got {fields[name]!r}"[:200])
            return CountQuestion(**fields)
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a question for counts: {error}"[:200]) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTask:
    """What the devices behind one node are asked in one release of a channel.

    Attributes:
        channel: of the policy.
        index: which release of the channel, counted from 0.
        cohort_size: devices asked over all nodes.
        device_ids: those of them behind this node.
        question: what is counted.
        policy: the signed envelope of the stream's policy, as in `RoundTask`.
        deadline_s: seconds after which the server waits for no answer; 0 where it does not say.
    """

    channel: str
    index: int
    cohort_size: int
    device_ids: tuple[str, ...]
    question: CountQuestion
    policy: str = ""
    deadline_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a task that no honest server sends."""
        if not self.channel:
            raise ValueError("channel must not be empty")
        if self.index < 0:
            raise ValueError(f"index must be at least 0, got {self.index}")
        if not (math.isfinite(self.deadline_s) and self.deadline_s >= 0):
            raise ValueError(f"deadline_s must be at least 0, got {self.deadline_s}")
        if len(set(self.device_ids)) != len(self.device_ids):
            raise ValueError("device_ids must not name a device twice")
        if not len(self.device_ids) <= self.cohort_size:
            raise ValueError(
                f"device_ids must not outnumber cohort_size {self.cohort_size}, "
                f"got {len(self.device_ids)}"
            )

    def to_plain(self) -> dict[str, PlainValue]:
        """Write the task as flat plain values, as Flower's records hold them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "channel": self.channel,
            "index": self.index,
            "cohort_size": self.cohort_size,
            "device_ids": list(self.device_ids),
            "question": self.question.to_text(),
            "policy": self.policy,
            **({"deadline_s": self.deadline_s} if self.deadline_s else {}),
        }

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "CountTask":
        """Read a task; values that this version does not know are ignored.

        Raises:
            ValueError: a value is missing, of the wrong type or out of bounds.
        """
        device_ids = read_value(values, "device_ids", list)
        if not all(isinstance(one, str) for one in device_ids):
            raise ValueError("device_ids must be texts")
        return CountTask(
            channel=read_value(values, "channel", str),
            index=read_value(values, "index", int),
            cohort_size=read_value(values, "cohort_size", int),
            device_ids=tuple(device_ids),
            question=CountQuestion.from_text(read_value(values, "question", str)),
            policy=read_value(values, "policy", str),
            deadline_s=read_value({"deadline_s": 0.0, **values}, "deadline_s", float),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What an answer says beside its numbers; the same whether a device had anything to count.

    Attributes:
        channel: of the task that is answered.
        index: of the task that is answered.
        num_devices: devices asked behind the node whose answers are in the sum, zeros included.
    """

    channel: str
    index: int
    num_devices: int

    def to_plain(self) -> dict[str, PlainValue]:
        """Write the facts as flat plain values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "Counted":
        """Read the facts.

        Raises:
            ValueError: a value is missing or of the wrong type.
        """
        return Counted(
            channel=read_value(values, "channel", str),
            index=read_value(values, "index", int),
            num_devices=read_value(values, "num_devices", int),
        )
