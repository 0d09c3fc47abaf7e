"""What a device behind a gateway answers: one vector, signed, sealed to the gateway, in parts.

Its size and form follow from the task alone, so zeros look like an update:

    sealed      byte 1, key id (8), HPKE to the gateway's key for the topic `up/contribution`
    inside      Ed25519 signature (64), payload
    payload     entries of fixed width, then the line of the device's receipt, filled up to 192
    entry       two's complement, little endian: 5 bytes of an update, 1 byte of a count

An update lies within C, which is 2^36 steps of its grid, so each entry needs 38 bits. The signature
covers who answers what, to whom: `CONTRIBUTION_PREFIX`, the canonical JSON of device, gateway,
kind, stream, index and the digest of what was offered, a line feed, the payload.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from .codec import canonical_json
from .errors import WireError
from .parts import TAG_BYTES, num_parts, split
from .sealing import KEY_BYTES, KEY_ID_BYTES, SIGNATURE_BYTES, is_sealed
from .sealing import LAYOUT as SEALED_LAYOUT
from .topics import Up, up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .envelope import SigningKey, VerifyKey
    from .sealing import OpeningKey, SealKey

CONTRIBUTION_PREFIX: Final = b"fedcell/v1/contribution\n"
UPDATE_ENTRY_BYTES: Final = 5
COUNT_ENTRY_BYTES: Final = 1
MOST_OF_UPDATE: Final = 2**36
"""Greatest size of an entry of an update: C on the grid of `privacy.clipping`."""
MOST_OF_COUNT: Final = 1
RECEIPT_BYTES: Final = 192
"""Length of a receipt's line, filled up with spaces, in ASCII."""
MOST_ENTRIES: Final = 1 << 18
_TAG_OF_SEAL: Final = 16
"""Bytes by which ChaCha20Poly1305 lengthens what it encrypts."""


class StepKind(StrEnum):
    """What is asked for."""

    UPDATE = "update"
    COUNT = "count"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What devices behind one gateway are asked, to which each of them has one answer.

    Attributes:
        kind: an update, or counts.
        stream: of the round; for counts the channel.
        index: of the step, or of the channel's release.
        gateway: that asks.
        material: SHA-256 of what all devices read for it, 64 hex digits.
    """

    kind: StepKind
    stream: str
    index: int
    gateway: str
    material: str

    @property
    def tag(self) -> bytes:
        """Sixteen bytes by which the parts of an answer name the step."""
        return hashlib.sha256(CONTRIBUTION_PREFIX + self._said()).digest()[:TAG_BYTES]

    def signed_bytes(self, device: str, payload: bytes) -> bytes:
        """Return what a device's signature covers."""
        return CONTRIBUTION_PREFIX + self._said(device=device) + b"\n" + payload

    def _said(self, **more: str) -> bytes:
        return canonical_json(
            {
                "gateway": self.gateway,
                "index": self.index,
                "kind": self.kind.value,
                "material": self.material,
                "stream": self.stream,
                **more,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributionForm:
    """How large an answer is, known from the task before anybody answers.

    Attributes:
        kind: of the step.
        num_entries: of the vector.
    """

    kind: StepKind
    num_entries: int

    def __post_init__(self) -> None:
        """Refuse a vector that no device is asked for.

        Raises:
            WireError: `bad_form`.
        """
        if not 0 < self.num_entries <= MOST_ENTRIES:
            raise WireError("bad_form", f"{self.num_entries} entries, 1 to {MOST_ENTRIES} are sent")

    @property
    def entry_bytes(self) -> int:
        """Width of an entry."""
        return UPDATE_ENTRY_BYTES if self.kind is StepKind.UPDATE else COUNT_ENTRY_BYTES

    @property
    def most(self) -> int:
        """Greatest size of an entry, either sign."""
        return MOST_OF_UPDATE if self.kind is StepKind.UPDATE else MOST_OF_COUNT

    @property
    def receipt_bytes(self) -> int:
        """Length of the receipt's line; counts come without one."""
        return RECEIPT_BYTES if self.kind is StepKind.UPDATE else 0

    @property
    def payload_bytes(self) -> int:
        """Length of the payload."""
        return self.num_entries * self.entry_bytes + self.receipt_bytes

    @property
    def sealed_bytes(self) -> int:
        """Length of the whole as it is cut into parts."""
        head = len(SEALED_LAYOUT) + KEY_ID_BYTES + KEY_BYTES
        return head + SIGNATURE_BYTES + self.payload_bytes + _TAG_OF_SEAL

    @property
    def num_parts(self) -> int:
        """Number of parts."""
        return num_parts(self.sealed_bytes)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one device says to a step.

    Attributes:
        values: int64, shape (num_entries,), on the grid.
        receipt: line of its ledger's receipt; empty for counts.
    """

    values: NDArray[np.int64]
    receipt: str


def contribution_parts(
    answer: Answer,
    *,
    step: Step,
    form: ContributionForm,
    device: str,
    key: SigningKey,
    seal_key: SealKey,
) -> tuple[bytes, ...]:
    """Return a device's answer as it travels on its topic `up/contribution`, part by part.

    Args:
        answer: zeros where the device sits out or must not answer.
        step: that it answers.
        form: of answers to that step.
        device: that answers.
        key: that it signs with.
        seal_key: of the gateway.

    Raises:
        WireError: the answer does not have the step's form.
        SealError: nothing can be sealed to that key.
    """
    payload = pack_answer(answer, form)
    inside = key.sign(step.signed_bytes(device, payload)) + payload
    return split(seal_key.seal(inside, topic=up(device, Up.CONTRIBUTION)), tag=step.tag)


def open_contribution(
    sealed: bytes,
    *,
    step: Step,
    form: ContributionForm,
    device: str,
    key: VerifyKey,
    opening_key: OpeningKey,
) -> Answer:
    """Return what a device answered, after its parts were put together.

    Args:
        sealed: the whole.
        step: that was offered to it.
        form: of answers to that step.
        device: on whose topic the parts came.
        key: that the device is known to sign with.
        opening_key: of the gateway.

    Raises:
        WireError: `wrong_size`, `not_sealed`, `bad_receipt`, `beyond_bound`.
        SealError: it was sealed to another, or for another device's topic.
        SignatureError: the device did not sign this answer to this step.
    """
    if len(sealed) != form.sealed_bytes:
        raise WireError("wrong_size", f"{len(sealed)} bytes, not {form.sealed_bytes}")
    if not is_sealed(sealed):
        raise WireError("not_sealed", "it does not begin as what is sealed")
    inside = opening_key.open(sealed, topic=up(device, Up.CONTRIBUTION))
    signature, payload = inside[:SIGNATURE_BYTES], inside[SIGNATURE_BYTES:]
    key.verify(signature, step.signed_bytes(device, payload))
    return unpack_answer(payload, form)


def pack_answer(answer: Answer, form: ContributionForm) -> bytes:
    """Return the payload of an answer, of a size that the form alone decides.

    Raises:
        WireError: `wrong_shape`, `beyond_bound`, `bad_receipt`.
    """
    values = answer.values
    if values.dtype != np.int64 or values.shape != (form.num_entries,):
        raise WireError("wrong_shape", f"{values.dtype} {values.shape}, not {form.num_entries}")
    _require_bounded(values, form)
    whole = np.ascontiguousarray(values, dtype="<i8").view(np.uint8).reshape(-1, 8)
    receipt = answer.receipt.encode("utf-8", "surrogatepass").ljust(form.receipt_bytes)
    if len(receipt) != form.receipt_bytes or not receipt.isascii():
        raise WireError("bad_receipt", f"must be ASCII of at most {form.receipt_bytes} bytes")
    return whole[:, : form.entry_bytes].tobytes() + receipt


def unpack_answer(payload: bytes, form: ContributionForm) -> Answer:
    """Return the answer of a payload.

    Raises:
        WireError: `wrong_size`, `beyond_bound`, `bad_receipt`.
    """
    if len(payload) != form.payload_bytes:
        raise WireError("wrong_size", f"{len(payload)} bytes, not {form.payload_bytes}")
    end = form.num_entries * form.entry_bytes
    whole = np.zeros((form.num_entries, 8), np.uint8)
    # The upper bytes: shifting down again spreads the sign.
    whole[:, -form.entry_bytes :] = np.frombuffer(payload[:end], np.uint8).reshape(
        form.num_entries, form.entry_bytes
    )
    shift = 8 * (8 - form.entry_bytes)
    values = (whole.view("<i8").reshape(-1) >> shift).astype(np.int64)
    _require_bounded(values, form)
    receipt = payload[end:]
    if not receipt.isascii() or any(byte < 0x20 or byte == 0x7F for byte in receipt):
        raise WireError("bad_receipt", "must be one line of ASCII")
    return Answer(values, receipt.decode("ascii"))


def _require_bounded(values: NDArray[np.int64], form: ContributionForm) -> None:
    if not bool(((values >= -form.most) & (values <= form.most)).all()):
        raise WireError("beyond_bound", f"an entry lies beyond {form.most}")
