"""The conformance kit, checked as its README tells others to: without our code behind it.

Features by the naive oracle, bytes by plain JSON, signatures and sealing by the primitives and the
formulas of RFC 8032 and RFC 9180, the graph by a bare session.
"""

import base64
import hashlib
import hmac
import json
import math

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from edge_client.conformance import FOLDER, MANIFEST, read_vectors
from edge_client.selftest import profile_of, readings_of_vector
from models.bundle import load_bundle
from models.feature_spec import FEATURE_SPEC_VERSION, digest
from models.telemetry import Telemetry
from tests.support.naive_features import naive_features

VECTORS = read_vectors()
CASES = {case["name"]: case for case in VECTORS["readings.json"]["cases"]}
IN_ORDER = ("every channel, fading", "every channel, healthy", "capacity alone, once a day")
IN_ORDER += ("another pack after day 50", "counters that begin anew", "too little history")


def test_kit_is_of_this_specification_and_bundle():
    manifest = VECTORS[MANIFEST]

    assert manifest["feature_spec_version"] == FEATURE_SPEC_VERSION
    assert manifest["feature_spec_digest"] == digest()
    assert manifest["bundle_digest"] == load_bundle().digest
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) <= 300_000


@pytest.mark.parametrize("name", IN_ORDER)
def test_features_are_those_of_the_naive_oracle(name):
    case = CASES[name]
    profile = profile_of(case["profile"])
    readings = readings_of_vector(case["readings"])
    for moment in case["expected"]["moments"]:
        known = [one for one in readings if one.at.timestamp() <= moment["now_s"]]
        telemetry = Telemetry.of_device(profile.device_id, known)
        expected, _ = naive_features(telemetry, profile, moment["now_s"])
        found = dict(zip(VECTORS["readings.json"]["features"], moment["features"], strict=True))
        for feature, value in expected.items():
            if math.isnan(value):
                assert found[feature] is None, feature
            else:
                assert found[feature] == pytest.approx(value, rel=1e-3, abs=1e-4), feature


def test_kit_shows_every_status_that_a_store_can_have():
    moments = [moment for case in CASES.values() for moment in case["expected"]["moments"]]

    assert {moment["status"] for moment in moments} == {"ok", "insufficient_history", "stale"}
    assert all(moment["status"] == moment["report"]["status"] for moment in moments)
    assert {moment["report"]["flagged"] for moment in moments} == {True, False, None}
    refused = {reason for case in CASES.values() for reason in case["expected"]["refused"]}
    assert {"in_the_future", "out_of_range:full_charge_capacity_mah"} <= refused


def test_outputs_are_those_of_a_bare_session():
    import onnxruntime

    vectors = VECTORS["outputs.json"]
    session = onnxruntime.InferenceSession(
        load_bundle().model_bytes, providers=["CPUExecutionProvider"]
    )
    rows = np.array(
        [[math.nan if v is None else v for v in row] for row in vectors["features"]], np.float32
    )
    names = list(vectors["outputs"])
    for name, found in zip(names, session.run(names, {"features": rows}), strict=True):
        np.testing.assert_allclose(found, np.array(vectors["outputs"][name]), rtol=1e-4, atol=1e-5)


def test_decisions_follow_from_outputs_by_the_words_of_the_readme():
    vectors = VECTORS["outputs.json"]
    actions = ("immediate_replacement", "schedule_replacement", "monitor_and_prepare")
    actions += ("routine_monitoring",)
    urgencies = ("critical", "high", "standard", "low")
    causes = ("capacity_fade", "resistance_growth", "swelling", "charger_fault", "sudden_death")
    scales = load_bundle().manifest.get("confidence_scales", [1.0] * 4)
    for number, decided in enumerate(vectors["decisions"]):
        outputs = {name: values[number] for name, values in vectors["outputs"].items()}
        band = sum(outputs["days_to_failure"][1] >= edge for edge in (7, 30, 90))
        flagged = outputs["failure_probability_30d"] >= vectors["threshold"]
        confidence = outputs["action_probabilities"][band] * scales[band]

        assert decided["recommended_action"] == actions[band]
        assert decided["flagged"] is flagged
        assert decided["urgency"] == urgencies[min(band, 1) if flagged else band]
        assert decided["primary_issue"] == causes[int(np.argmax(outputs["cause_probabilities"]))]
        assert decided["confidence"] == pytest.approx(confidence, rel=1e-4, abs=1e-5)


def test_messages_are_sorted_json_without_spaces_and_padded():
    for entry in VECTORS["messages.json"]["messages"]:
        body = json.loads(entry["payload"])
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        size = len(entry["payload"].encode())

        assert entry["payload"].rstrip(" ") == text
        assert body["type"] == entry["type"]
        assert size == len(text.encode()) or size in {512, 1024}


def test_topics_are_made_of_the_hash_of_the_device():
    for entry in VECTORS["messages.json"]["topics"]:
        shard = hashlib.sha256(entry["device"].encode()).hexdigest()[:2]
        way = f"{entry['direction']}/{entry['kind']}"

        assert entry["topic"] == f"fedcell/v1/{shard}/d/{entry['device']}/{way}"


def from_base64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_signatures_verify_over_the_prefix_and_the_payload():
    vectors = VECTORS["signatures.json"]
    public = bytes.fromhex(vectors["keys"][0]["public"])
    key, prefix = Ed25519PublicKey.from_public_bytes(public), vectors["signed_prefix"].encode()

    assert vectors["keys"][0]["key_id"] == hashlib.sha256(public).hexdigest()[:16]
    for entry in vectors["envelopes"]:
        envelope = json.loads(entry["envelope"])
        assert from_base64url(envelope["body"]) == entry["payload"].encode()
        key.verify(from_base64url(envelope["sig"]), prefix + entry["payload"].encode())
    for entry in vectors["signed_bytes"]:
        signed = bytes.fromhex(entry["signed_hex"])
        key.verify(bytes.fromhex(entry["signature"]), signed)
        with pytest.raises(InvalidSignature):
            key.verify(bytes.fromhex(entry["signature"]), signed[:-1])


KEM = b"KEM" + (0x0020).to_bytes(2, "big")
SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0003))


def extract(suite, salt, label, material):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")


def expand(suite, secret, label, info, length):
    info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, info + b"\x01", "sha256")[:length]


def opened(message, private, info):
    """RFC 9180, sections 4.1, 5.1 and 5.2, base mode, the first message of a context."""
    encapsulated, ciphertext = message[9:41], message[41:]
    own = X25519PrivateKey.from_private_bytes(private)
    shared = own.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    context = encapsulated + own.public_key().public_bytes_raw()
    secret = expand(KEM, extract(KEM, b"", b"eae_prk", shared), b"shared_secret", context, 32)
    schedule = b"\0" + extract(SUITE, b"", b"psk_id_hash", b"")
    schedule += extract(SUITE, b"", b"info_hash", info)
    secret = extract(SUITE, secret, b"secret", b"")
    key = expand(SUITE, secret, b"key", schedule, 32)
    nonce = expand(SUITE, secret, b"base_nonce", schedule, 12)
    return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, b"")


def test_sealed_messages_open_by_the_formulas_of_the_standard():
    vectors = VECTORS["sealing.json"]
    private = bytes.fromhex(vectors["device"]["private"])
    signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vectors["signer"]["public"]))
    for entry in vectors["sealed"]:
        message = bytes.fromhex(entry["message_hex"])
        inside = opened(message, private, (vectors["info_prefix"] + entry["topic"]).encode())

        assert message[0] == 1
        assert message[1:9].hex() == vectors["device"]["key_id"]
        assert inside[:8].hex() == vectors["signer"]["key_id"]
        assert inside[72:] == entry["payload"].encode()
        signer.verify(inside[8:72], b"fedcell/v1/message\n" + inside[72:])
