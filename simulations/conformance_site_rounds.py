"""The conformance kit's vectors of rounds over MQTT: a gateway's messages, a device's parts.

Sealing draws a key anew each time, so a sealed contribution is made once and kept as long as it
still opens to what it shall say.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from models.telemetry import DeviceId
from models.wire.codec import encode
from models.wire.contribution import (
    MOST_OF_UPDATE,
    Answer,
    ContributionForm,
    Step,
    StepKind,
    contribution_parts,
    open_contribution,
    pack_answer,
)
from models.wire.envelope import SigningKey, trusted_keys
from models.wire.errors import WireError
from models.wire.parts import join, read_part
from models.wire.round_material import RoundMaterial
from models.wire.rounds import DeviceReceipt, LocalRecipe, RoundTask
from models.wire.sealing import OpeningKey
from models.wire.site_grant import DeviceGrant
from models.wire.site_rounds import (
    CountOffer,
    MissingParts,
    RoundOffer,
    StepRelease,
    open_from_gateway,
    signed_by_gateway,
    update_form,
)

if TYPE_CHECKING:
    from models.wire.site_rounds import SiteMessage

SERVER_SEED, GATEWAY_SEED, SEAL_SEED, DEVICE_SEED = (bytes(range(n, n + 32)) for n in range(4))
DEVICE, GATEWAY = "device-1", "gateway-1"
ISSUED = datetime(2026, 6, 1, tzinfo=UTC)
TIME = ISSUED + timedelta(days=1)
NUM_WEIGHTS = 900
PSEUDONYM = f"{7:032x}"


def site_round_vectors(before: dict[str, Any] | None) -> dict[str, object]:
    """Return the vectors.

    Args:
        before: those that stand in the kit already, whose sealed parts are kept where they open.
    """
    server, gateway, device = (
        SigningKey.from_bytes(seed) for seed in (SERVER_SEED, GATEWAY_SEED, DEVICE_SEED)
    )
    opening = OpeningKey.from_bytes(SEAL_SEED)
    grant = DeviceGrant(
        device=DeviceId(DEVICE),
        gateway=DeviceId(GATEWAY),
        issued=ISSUED,
        not_after=ISSUED + timedelta(days=30),
        verify_key=gateway.verify_key.to_bytes().hex(),
        seal_key=opening.seal_key.to_bytes().hex(),
    )
    material = _material()
    messages = _messages(grant.signed(server), material)
    step = messages[0].step(GATEWAY)  # type: ignore[attr-defined]
    old = None if before is None else before["contribution"]["parts_hex"]
    return {
        "what": "a gateway's messages, what all devices read for a step, a device's sealed answer",
        "server": {"public": server.verify_key.to_bytes().hex()},
        "gateway": {
            "id": GATEWAY,
            "sign_seed": GATEWAY_SEED.hex(),
            "seal_private": SEAL_SEED.hex(),
        },
        "device": {"id": DEVICE, "sign_seed": DEVICE_SEED.hex(), "time": TIME.isoformat()},
        "material": {
            "weights": [float(one) for one in material.weights],
            "policy": material.policy,
            "question": material.question,
            "sha256": hashlib.sha256(material.to_bytes()).hexdigest(),
            "parts_hex": [part.hex() for part in material.parts()],
        },
        "messages": [
            {
                "type": message.TYPE,
                "payload": encode(message).decode(),
                "envelope": signed_by_gateway(message, gateway).decode(),
            }
            for message in messages
        ],
        "refused": _refused(messages[0], grant, gateway=gateway, server=server),
        "packing": _packing(),
        "step": {
            "kind": step.kind.value,
            "stream": step.stream,
            "index": step.index,
            "gateway": step.gateway,
            "material": step.material,
        },
        "contribution": _contribution(step, device=device, opening=opening, before=old),
    }


def _material() -> RoundMaterial:
    weights = ((np.arange(NUM_WEIGHTS) - NUM_WEIGHTS // 2) / 1024).astype(np.float32)
    return RoundMaterial(weights=weights, policy="a policy's envelope stands here; " * 20)


def _messages(grant: str, material: RoundMaterial) -> list[SiteMessage]:
    whole = material.to_bytes()
    offered: dict[str, Any] = {
        "grant": grant,
        "device": DEVICE,
        "material": hashlib.sha256(whole).hexdigest(),
        "material_bytes": len(whole),
        "deadline_s": 600,
    }
    task = RoundTask(
        stream="run-0123456789abcdef",
        index=3,
        clipping_norm=0.5,
        cohort_size=2500,
        device_ids=(DEVICE,),
        recipe=LocalRecipe(),
        pseudonyms=(PSEUDONYM,),
    )
    common: dict[str, Any] = {"grant": grant, "device": DEVICE}
    offer = RoundOffer(**offered, task=task)
    return [
        offer,
        CountOffer(**offered, channel="evaluation", index=1, cohort_size=2500),
        MissingParts(**common, tag=offer.step(GATEWAY).tag.hex(), parts=(1,)),
        StepRelease(**common, stream=task.stream, index=task.index, entry="an envelope"),
    ]


def _refused(
    offer: SiteMessage, grant: DeviceGrant, *, gateway: SigningKey, server: SigningKey
) -> list[dict[str, str]]:
    envelope = signed_by_gateway(offer, gateway)
    body = json.loads(encode(offer))
    other = MissingParts(grant=offer.grant, device="device-2", tag="0" * 32, parts=())
    cut = {**body, "grant": body["grant"][:-9]}
    foreign = replace(grant, device=DeviceId("device-2"))
    ended = replace(grant, issued=TIME - timedelta(days=30), not_after=TIME)
    refused = [
        ("bad_signature", envelope[:-20] + b"AAAA" + envelope[-16:]),
        ("unknown_key", signed_by_gateway(offer, server)),
        ("foreign_device", signed_by_gateway(other, gateway)),
        ("foreign_grant", _granted(body, foreign, server, gateway)),
        ("unknown_key", _granted(body, grant, gateway, gateway)),
        ("expired", _granted(body, ended, server, gateway)),
        ("not_json", _signed(cut, gateway)),
        ("missing_field", _signed({"type": "round_offer"}, gateway)),
        ("wrong_type", _signed({**body, "type": "notice"}, gateway)),
        ("bad_field", _signed({**body, "deadline_s": 0}, gateway)),
        ("bad_field", _signed({**body, "task": {**body["task"], "clipping_norm": -1}}, gateway)),
    ]
    trusted = trusted_keys(server.verify_key)
    for reason, wrong in refused:
        try:
            open_from_gateway(
                wrong,
                device=DEVICE,
                believe=lambda shown: DeviceGrant.from_envelope(shown, trusted, TIME),
            )
        except WireError as error:
            if error.reason == reason:
                continue
            raise ValueError(f"refused as {error.reason}, not as {reason}") from error
        raise ValueError(f"taken, but must be refused as {reason}")
    return [{"reason": reason, "envelope_hex": wrong.hex()} for reason, wrong in refused]


def _granted(
    body: dict[str, Any], grant: DeviceGrant, signer: SigningKey, gateway: SigningKey
) -> bytes:
    return _signed({**body, "grant": grant.signed(signer)}, gateway)


def _signed(body: dict[str, Any], key: SigningKey) -> bytes:
    from models.wire.codec import canonical_json
    from models.wire.envelope import sign_payload

    return sign_payload(canonical_json(body), key)


def _packing() -> list[dict[str, object]]:
    cases = [
        (StepKind.UPDATE, [0, 1, -1, MOST_OF_UPDATE, -MOST_OF_UPDATE, 123_456_789], "{}"),
        (StepKind.UPDATE, [0] * 6, "{}"),
        (StepKind.COUNT, [0, 1, 0, 0], ""),
    ]
    return [
        {
            "kind": kind.value,
            "values": values,
            "receipt": receipt,
            "payload_hex": pack_answer(
                Answer(np.array(values, np.int64), receipt),
                ContributionForm(kind=kind, num_entries=len(values)),
            ).hex(),
        }
        for kind, values, receipt in cases
    ]


def _contribution(
    step: Step, *, device: SigningKey, opening: OpeningKey, before: list[str] | None
) -> dict[str, object]:
    task = RoundTask(
        stream=step.stream,
        index=step.index,
        clipping_norm=0.5,
        cohort_size=2500,
        device_ids=(DEVICE,),
        recipe=LocalRecipe(),
    )
    form = update_form(task, num_weights=NUM_WEIGHTS)
    values = np.array([(n * 48_271) % 2**30 - 2**29 for n in range(NUM_WEIGHTS)], np.int64)
    receipt = DeviceReceipt(
        pseudonym=PSEUDONYM, participations=2, mu_squared=0.01, head="0" * 64
    ).to_line()
    answer = Answer(values, receipt)

    def opened(parts: list[bytes]) -> Answer:
        read = [read_part(part) for part in parts]
        return open_contribution(
            join(read, digest=read[0].digest, size=form.sealed_bytes),
            step=step,
            form=form,
            device=DEVICE,
            key=device.verify_key,
            opening_key=opening,
        )

    parts = [bytes.fromhex(part) for part in before or []]
    try:
        kept = opened(parts)
        is_kept = bool((kept.values == values).all()) and kept.receipt.rstrip() == receipt
    except (WireError, IndexError):
        is_kept = False
    if not is_kept:
        made = contribution_parts(
            answer, step=step, form=form, device=DEVICE, key=device, seal_key=opening.seal_key
        )
        parts = list(made)
    whole = b"".join(read_part(part).chunk for part in parts)
    return {
        "tag": step.tag.hex(),
        "values": values.tolist(),
        "receipt": receipt,
        "parts_hex": [part.hex() for part in parts],
        "refused": [
            {"reason": "bad_seal", "sealed_hex": (whole[:-1] + bytes([whole[-1] ^ 1])).hex()},
            {"reason": "wrong_size", "sealed_hex": whole[:200].hex()},
        ],
    }
