"""The vectors of rounds over MQTT: what a gateway says, and the sealed parts of an answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .comparing import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.wire.contribution import Step
    from models.wire.site_grant import DeviceGrant

    Vectors = Mapping[str, Any]


def check_site_rounds(vectors: Vectors) -> Iterator[str | None]:
    """Check material, messages of a gateway, packing, parts and refusals; yields what differs."""
    yield from _check_material(vectors["material"])
    yield from _check_messages(vectors)
    yield from _check_packing(vectors["packing"])
    yield from _check_contribution(vectors)


def _check_material(entry: Mapping[str, Any]) -> Iterator[str | None]:
    import hashlib

    import numpy as np

    from models.wire.parts import join, read_part
    from models.wire.round_material import RoundMaterial, read_material

    weights = np.array(entry["weights"], np.float32)
    made = RoundMaterial(weights=weights, policy=entry["policy"], question=entry["question"])
    parts = [bytes.fromhex(part) for part in entry["parts_hex"]]
    whole = made.to_bytes()
    yield None if hashlib.sha256(whole).hexdigest() == entry["sha256"] else "digest of the material"
    yield None if list(made.parts()) == parts else "parts of the material"
    digest = bytes.fromhex(entry["sha256"])
    joined = join(map(read_part, reversed(parts)), digest=digest, size=len(whole))
    found = read_material(joined)
    same = found.policy == entry["policy"] and bool((found.weights == weights).all())
    yield None if same else "what the material holds"


def _check_messages(vectors: Vectors) -> Iterator[str | None]:
    from models.wire.codec import decode
    from models.wire.envelope import SigningKey
    from models.wire.errors import WireError
    from models.wire.site_rounds import SITE_MESSAGES, open_from_gateway, signed_by_gateway

    believe, device = _believe(vectors), vectors["device"]["id"]
    key = SigningKey.from_bytes(bytes.fromhex(vectors["gateway"]["sign_seed"]))
    kinds = {kind.TYPE: kind for kind in SITE_MESSAGES}
    for entry in vectors["messages"]:
        payload, envelope = entry["payload"].encode(), entry["envelope"].encode()
        message = decode(payload, kinds[entry["type"]])
        _, opened = open_from_gateway(envelope, device=device, believe=believe)
        same = signed_by_gateway(message, key) == envelope and opened == message
        yield None if same else f"{entry['type']} from a gateway"
    for entry in vectors["refused"]:
        envelope = bytes.fromhex(entry["envelope_hex"])
        work = partial(open_from_gateway, envelope, device=device, believe=believe)
        yield refusal(work, WireError, entry["reason"])


def _check_packing(entries: list[Mapping[str, Any]]) -> Iterator[str | None]:
    import numpy as np

    from models.wire.contribution import (
        Answer,
        ContributionForm,
        StepKind,
        pack_answer,
        unpack_answer,
    )

    for entry in entries:
        values = np.array(entry["values"], np.int64)
        form = ContributionForm(kind=StepKind(entry["kind"]), num_entries=values.size)
        payload = bytes.fromhex(entry["payload_hex"])
        same = pack_answer(Answer(values, entry["receipt"]), form) == payload
        found = unpack_answer(payload, form)
        same = same and bool((found.values == values).all())
        same = same and found.receipt == entry["receipt"].ljust(form.receipt_bytes)
        yield None if same else f"packing of {entry['kind']}"


def _check_contribution(vectors: Vectors) -> Iterator[str | None]:
    from models.wire.contribution import ContributionForm, StepKind, open_contribution
    from models.wire.envelope import SigningKey
    from models.wire.errors import WireError
    from models.wire.parts import join, read_part
    from models.wire.sealing import OpeningKey

    entry, step = vectors["contribution"], _step(vectors)
    yield None if step.tag.hex() == entry["tag"] else f"tag {step.tag.hex()}"
    kind, values = StepKind(vectors["step"]["kind"]), entry["values"]
    form = ContributionForm(kind=kind, num_entries=len(values))
    device = vectors["device"]
    opening = partial(
        open_contribution,
        step=step,
        form=form,
        device=device["id"],
        key=SigningKey.from_bytes(bytes.fromhex(device["sign_seed"])).verify_key,
        opening_key=OpeningKey.from_bytes(bytes.fromhex(vectors["gateway"]["seal_private"])),
    )
    parts = [read_part(bytes.fromhex(part)) for part in entry["parts_hex"]]
    whole = join(parts, digest=parts[0].digest, size=form.sealed_bytes)
    answer = opening(whole)
    same = answer.values.tolist() == values and answer.receipt.rstrip() == entry["receipt"]
    yield None if same else "what the contribution holds"
    for wrong in entry["refused"]:
        yield refusal(
            partial(opening, bytes.fromhex(wrong["sealed_hex"])), WireError, wrong["reason"]
        )


def _step(vectors: Vectors) -> Step:
    from models.wire.contribution import Step, StepKind

    fields = dict(vectors["step"])
    return Step(kind=StepKind(fields.pop("kind")), **fields)


def _believe(vectors: Vectors) -> Any:
    from datetime import datetime

    from models.wire.envelope import VerifyKey, trusted_keys
    from models.wire.site_grant import DeviceGrant

    server = trusted_keys(VerifyKey.from_bytes(bytes.fromhex(vectors["server"]["public"])))

    now = datetime.fromisoformat(vectors["device"]["time"])

    def believe(envelope: str) -> DeviceGrant:
        return DeviceGrant.from_envelope(envelope, server, now)

    return believe
