"""The kit's rounds over MQTT, by the words of its README: without our code behind it."""

import base64
import hashlib
import json
import struct

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_client.conformance import read_vectors
from tests.golden.test_conformance_vectors import opened

VECTORS = read_vectors()["site_rounds.json"]
PREFIX = b"fedcell/v1/contribution\n"


def canonical(body):
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def joined(parts_hex, tag):
    parts = sorted(map(bytes.fromhex, parts_hex), key=lambda part: part[49:51])
    whole = b"".join(part[53:] for part in parts)
    for number, part in enumerate(parts):
        head = struct.pack(">B16s32sHH", 2, tag, hashlib.sha256(whole).digest(), number, len(parts))
        assert part[:53] == head
        assert len(part) <= 4096
    return whole


def test_material_is_lengths_texts_and_floats():
    entry = VECTORS["material"]
    whole = joined(entry["parts_hex"], hashlib.sha256(b"fedcell/v1/material\n").digest()[:16])
    weights = struct.pack(f"<{len(entry['weights'])}f", *entry["weights"])
    texts = [entry[name].encode() for name in ("policy", "question")]

    assert hashlib.sha256(whole).hexdigest() == entry["sha256"]
    assert whole == struct.pack(">BII", 1, *map(len, texts)) + b"".join(texts) + weights


def test_messages_are_signed_by_the_gateway_and_the_grant_by_the_server():
    def verified(envelope, public):
        fields = json.loads(envelope)
        body, signature = (
            base64.urlsafe_b64decode(fields[name] + "=" * (-len(fields[name]) % 4))
            for name in ("body", "sig")
        )
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(signature, b"fedcell/v1/message\n" + body)
        return json.loads(body)

    kinds = []
    for entry in VECTORS["messages"]:
        payload = json.loads(entry["payload"])
        grant = verified(payload["grant"], VECTORS["server"]["public"])
        kinds.append(entry["type"])
        device, gateway = VECTORS["device"]["id"], VECTORS["gateway"]["id"]

        assert verified(entry["envelope"], grant["verify_key"]) == payload
        assert (grant["device"], grant["gateway"]) == (device, gateway)
        assert payload["device"] == device
        assert canonical(payload).decode() == entry["payload"]
        assert len(entry["envelope"]) <= 4096
    assert kinds == ["round_offer", "count_offer", "missing_parts", "step_release"]


def test_a_contribution_is_signed_for_its_step_and_sealed_for_its_topic():
    entry, step, device = VECTORS["contribution"], VECTORS["step"], VECTORS["device"]
    tag = hashlib.sha256(PREFIX + canonical(step)).digest()[:16]
    topic = f"fedcell/v1/{hashlib.sha256(device['id'].encode()).hexdigest()[:2]}"
    topic += f"/d/{device['id']}/up/contribution"
    sealed = joined(entry["parts_hex"], tag)
    inside = opened(
        sealed,
        bytes.fromhex(VECTORS["gateway"]["seal_private"]),
        b"fedcell/v1/sealed\n" + topic.encode(),
    )
    signature, payload = inside[:64], inside[64:]
    values = [
        int.from_bytes(payload[start : start + 5], "little", signed=True)
        for start in range(0, 5 * len(entry["values"]), 5)
    ]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(device["sign_seed"])).public_key()
    said = PREFIX + canonical(step | {"device": device["id"]}) + b"\n"

    assert tag.hex() == entry["tag"]
    assert values == entry["values"]
    assert payload[5 * len(values) :].decode() == entry["receipt"].ljust(192)
    key.verify(signature, said + payload)
    with pytest.raises(InvalidSignature):
        key.verify(signature, said.replace(b'"index":3', b'"index":4') + payload)


def test_packed_entries_have_one_width_whatever_they_are():
    for entry in VECTORS["packing"]:
        width = 5 if entry["kind"] == "update" else 1
        expected = b"".join(v.to_bytes(width, "little", signed=True) for v in entry["values"])
        receipt = entry["receipt"].ljust(192 if width == 5 else 0).encode()

        assert bytes.fromhex(entry["payload_hex"]) == expected + receipt
