"""Making an answer in a process of its own, where the way of training needs torch.

The closed form adds 6 MB to an agent, and is done in a blink: it runs in a thread. torch adds
hundreds, which only a process's end gives back. It reads one JSON object from standard input and
writes one. What was debited in it is debited: should the agent end before it, the answer is lost,
and the ledger refuses to make it again.

python -m edge_client.site_rounds.separate_process
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from models.wire.round_material import read_material

from ..errors import EdgeError, ServiceError, StepOverError, TaskRefusedError
from .kept_step import KeptStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.wire.round_material import RoundMaterial

    from .settings import DeviceAt
    from .time_left import Moment

_GRACE_S: Final = 30.0
"""Seconds beyond the step's end after which a process that hangs is ended."""
_ENDINGS: Final[dict[str, type[TaskRefusedError]]] = {
    "over": StepOverError,
    "refused": TaskRefusedError,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a process is asked to answer.

    Attributes:
        device_at: returns the device that takes part, at a moment.
        step: as it was offered.
        material: what it is about.
        at: the device's time.
    """

    device_at: DeviceAt
    step: KeptStep
    material: RoundMaterial
    at: datetime

    def to_bytes(self) -> bytes:
        """Return it as the process reads it."""
        keys = {name: key.hex() for name, key in self.device_at.server_keys.items()}
        return json.dumps(
            {
                "values": dict(self.device_at.values),
                "server_keys": keys,
                "step": self.step.to_plain(),
                "material": base64.b64encode(self.material.to_bytes()).decode("ascii"),
                "at": self.at.isoformat(),
            }
        ).encode()

    @staticmethod
    def from_bytes(text: bytes) -> Asked:
        """Read it."""
        from .settings import DeviceAt

        said: dict[str, Any] = json.loads(text)
        keys = {name: bytes.fromhex(key) for name, key in said["server_keys"].items()}
        return Asked(
            device_at=DeviceAt(said["values"], keys),
            step=KeptStep.from_plain(said["step"]),
            material=read_material(base64.b64decode(said["material"])),
            at=datetime.fromisoformat(said["at"]),
        )


def answered_aside(asked: Asked, *, left_s: float) -> tuple[bytes, ...]:
    """Have a process answer, and wait for it.

    Args:
        asked: what to answer.
        left_s: for how many seconds an answer counts.

    Raises:
        TaskRefusedError: as `answering.made_parts`.
        ServiceError: the process could not answer.
    """
    command = [sys.executable, "-m", __spec__.name]
    try:
        done = subprocess.run(
            command,
            input=asked.to_bytes(),
            stdout=subprocess.PIPE,
            timeout=left_s + _GRACE_S,
            check=False,
        )
        said: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        what = f"gave no answer ({type(error).__name__})"
        raise ServiceError("training process", what, "check memory and the log") from None
    if "parts" in said:
        return tuple(base64.b64decode(part) for part in said["parts"])
    refusal = _ENDINGS.get(str(said.get("ending")))
    if refusal is not None:
        raise refusal(str(said.get("what")))
    raise ServiceError("training process", str(said.get("what")), "see what it says")


def answer(text: bytes, *, present: Callable[[datetime], Moment]) -> dict[str, Any]:
    """Answer what was asked, as the process says it.

    Args:
        text: from standard input.
        present: returns the present by both clocks, from the device's time.
    """
    from models.errors import ModelsError

    from .answering import made_parts

    asked = Asked.from_bytes(text)
    try:
        parts = made_parts(
            asked.device_at(asked.at),
            asked.step,
            asked.material,
            left_s=lambda: asked.step.left_s(present(asked.at)),
        )
    except StepOverError as error:
        return {"ending": "over", "what": str(error)}
    except TaskRefusedError as error:
        return {"ending": "refused", "what": str(error)}
    except (EdgeError, ModelsError, ValueError) as error:
        return {"ending": "failed", "what": str(error)}
    return {"parts": [base64.b64encode(part).decode("ascii") for part in parts]}


def main() -> None:
    """Answer once."""
    import logging

    from .time_left import moment_of

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    said = answer(sys.stdin.buffer.read(), present=lambda at: moment_of(at.timestamp()))
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
