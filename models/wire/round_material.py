"""What all devices behind a gateway read for one step: weights, policy, question; told once.

The gateway says it on `fedcell/v1/gateway/{gateway}/weights/{part}`, retained, in parts. An offer
names its SHA-256, so each device knows what it read, whoever said it, and one text of parts serves
them all. Layout: byte 1, length of the policy (4 bytes, big endian), length of the question (4),
policy, question, weights as float32, little endian.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .codec import MAX_PAYLOAD_BYTES
from .contribution import MOST_ENTRIES
from .errors import WireError
from .parts import TAG_BYTES, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT: Final = 1
MATERIAL_TAG: Final = hashlib.sha256(b"fedcell/v1/material\n").digest()[:TAG_BYTES]
"""Tag of its parts."""
MOST_QUESTION_BYTES: Final = 1 << 17
_HEADER: Final = struct.Struct(">BII")
MOST_MATERIAL_BYTES: Final = (
    _HEADER.size + MAX_PAYLOAD_BYTES + MOST_QUESTION_BYTES + 4 * MOST_ENTRIES
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundMaterial:
    """What one step is about, the same for every device.

    Attributes:
        weights: of the round, float32, shape (n_weights,); empty for counts.
        policy: signed envelope of the stream's policy; empty for simulated fleets.
        question: text of what is counted; empty for a round of training.
    """

    weights: NDArray[np.float32]
    policy: str = ""
    question: str = ""

    def to_bytes(self) -> bytes:
        """Return the whole that is cut into parts.

        Raises:
            WireError: `bad_material`: too large, or not what a round is about.
        """
        policy, question = self.policy.encode(), self.question.encode()
        _require_sizes(len(policy), len(question), self.weights.size)
        weights = self.weights.astype("<f4", copy=False).tobytes()
        return _HEADER.pack(LAYOUT, len(policy), len(question)) + policy + question + weights

    def parts(self) -> tuple[bytes, ...]:
        """Return its parts, each as it travels."""
        return split(self.to_bytes(), tag=MATERIAL_TAG)


def read_material(content: bytes) -> RoundMaterial:
    """Return what a whole holds, after its parts were put together under the offer's digest.

    Raises:
        WireError: `bad_material`.
    """
    if len(content) < _HEADER.size:
        raise WireError("bad_material", f"{len(content)} bytes are none")
    layout, policy_bytes, question_bytes = _HEADER.unpack_from(content)
    if layout != LAYOUT:
        raise WireError("bad_material", f"layout {layout}, only {LAYOUT} is known")
    texts_end = _HEADER.size + policy_bytes + question_bytes
    left = len(content) - texts_end
    if left < 0 or left % 4:
        raise WireError("bad_material", "its lengths are not those of its parts")
    _require_sizes(policy_bytes, question_bytes, left // 4)
    policy_end = _HEADER.size + policy_bytes
    try:
        policy = content[_HEADER.size : policy_end].decode()
        question = content[policy_end:texts_end].decode()
    except UnicodeDecodeError:
        raise WireError("bad_material", "policy and question must be UTF-8") from None
    weights = np.frombuffer(content[texts_end:], "<f4").astype(np.float32)
    if not bool(np.isfinite(weights).all()):
        raise WireError("bad_material", "the weights are not finite")
    return RoundMaterial(weights=weights, policy=policy, question=question)


def _require_sizes(policy_bytes: int, question_bytes: int, num_weights: int) -> None:
    if policy_bytes > MAX_PAYLOAD_BYTES or question_bytes > MOST_QUESTION_BYTES:
        what = f"policy of {policy_bytes} bytes, question of {question_bytes}"
        raise WireError("bad_material", what)
    if num_weights > MOST_ENTRIES or (num_weights == 0) != (question_bytes > 0):
        what = f"{num_weights} weights beside a question of {question_bytes} bytes"
        raise WireError("bad_material", what)
