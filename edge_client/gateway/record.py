"""What a gateway remembers: which steps it answered, for life, and how the last ones went.

<store>.gateway/answered.json   steps that were answered, and whom the step at hand was offered to
<store>.gateway/status.json     the last steps in figures, for `fedcell-device gateway status`

A step stands as answered before its sum is handed to Flower: whoever asks for it again gets
nothing. So a server that was put back to an older copy cannot have the updates of a site meet noise
twice (ADR 0033, ADR 0044). What a site's devices sent is never on the disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import write_durably

from ..errors import GatewayError
from ..provisioning.state_file import read_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ANSWERED_FILE: Final = "answered.json"
STATUS_FILE: Final = "status.json"
MOST_STEPS_TOLD: Final = 50
_FORMAT: Final = 1
_DAMAGED: Final = "put its copy back, or enrol the gateway anew under another name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a gateway has answered, and what it is at.

    Attributes:
        last_index: last step that was answered, by stream (or channel and policy).
        stream: of the step that was offered last, empty before the first.
        index: of it.
        offered_to: devices that it was offered to: its release is told to them.
        retained_parts: parts that stand with the broker, to be taken away again.
    """

    last_index: Mapping[str, int] = field(default_factory=dict)
    stream: str = ""
    index: int = 0
    offered_to: tuple[str, ...] = ()
    retained_parts: int = 0

    def has_answered(self, series: str, index: int) -> bool:
        """Tell whether a step, or a later one of its series, was answered."""
        return index <= self.last_index.get(series, -1)

    def with_answer(self, series: str, index: int) -> Answered:
        """Return it with one more step answered."""
        return replace(self, last_index={**self.last_index, series: index})


def gateway_folder(store: Path) -> Path:
    """Return where the record of a store's gateway is."""
    return store.with_name(store.name + ".gateway")


def read_answered(folder: Path) -> Answered:
    """Return what was answered.

    Raises:
        GatewayError: the file is damaged: nothing may be answered without it.
    """
    path = folder / ANSWERED_FILE
    try:
        content = read_state(path, known_format=_FORMAT, refusal=GatewayError)
        if content is None:
            return Answered()
        return Answered(
            last_index={str(name): int(index) for name, index in content["last_index"].items()},
            stream=str(content["stream"]),
            index=int(content["index"]),
            offered_to=tuple(map(str, content["offered_to"])),
            retained_parts=int(content["retained_parts"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise GatewayError(path, "holds no record of answered steps", _DAMAGED) from None


def write_answered(folder: Path, answered: Answered) -> None:
    """Keep what was answered, durably.

    Raises:
        GatewayError: the folder or the disk refuses; nothing may leave.
    """
    content = {
        "format": _FORMAT,
        "last_index": dict(answered.last_index),
        "stream": answered.stream,
        "index": answered.index,
        "offered_to": list(answered.offered_to),
        "retained_parts": answered.retained_parts,
    }
    _write(folder / ANSWERED_FILE, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTold:
    """How a step went, in figures of the site.

    Attributes:
        kind: `update` or `count`.
        stream: or channel.
        index: of the step.
        at: when it was over, ISO 8601, UTC.
        seconds: that it took.
        invited: number of devices that it was offered to.
        answered: of them, those that are in the sum.
        refused: parts and answers that count as nothing, by reason.
        silent: devices of whom nothing is in the sum.
    """

    kind: str
    stream: str
    index: int
    at: str
    seconds: float
    invited: int
    answered: int
    refused: Mapping[str, int]
    silent: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON carries it."""
        return {
            "kind": self.kind,
            "stream": self.stream,
            "index": self.index,
            "at": self.at,
            "seconds": round(self.seconds, 3),
            "invited": self.invited,
            "answered": self.answered,
            "refused": dict(sorted(self.refused.items())),
            "silent": list(self.silent),
        }


def tell_step(folder: Path, gateway: str, told: StepTold) -> None:
    """Add a step to those that `status` tells; the oldest go.

    Raises:
        GatewayError: the folder or the disk refuses.
    """
    steps = [*read_status(folder).get("steps", []), told.to_plain()][-MOST_STEPS_TOLD:]
    _write(folder / STATUS_FILE, {"format": _FORMAT, "gateway": gateway, "steps": steps})


def read_status(folder: Path) -> dict[str, Any]:
    """Return what is told of the last steps; nothing where there is none, or it is damaged."""
    try:
        content = read_state(folder / STATUS_FILE, known_format=_FORMAT, refusal=GatewayError)
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("steps"), list):
        return {}
    return content


def _write(path: Path, content: object) -> None:
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_durably(path, json.dumps(content, indent=1).encode())
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise GatewayError(path, what, "check the folder and the disk") from None
