"""Writes the conformance kit of the edge client: what firmware must compute, byte for byte.

Everything is made by the code that devices run. Sealing draws a key anew each time, so a sealed
message is made once and kept as long as it still opens to what it shall say.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_client.conformance import FILES, MANIFEST
from edge_client.selftest import computed, decisions, with_none
from models import feature_spec
from models.bundle import CLIENT_VERSION, load_bundle, sign_bundle
from models.durable_file import write_durably
from models.inference import Predictor
from models.prediction import Confidence, Urgency
from models.telemetry import DeviceId
from models.wire.bands import DaysBand, HealthBand, ProbabilityBand
from models.wire.codec import encode
from models.wire.envelope import SIGNED_PREFIX, SigningKey, open_signed, sign_payload, trusted_keys
from models.wire.errors import WireError
from models.wire.messages import (
    Ack,
    Birth,
    Configuration,
    Criticality,
    Notice,
    NoticeState,
    Presence,
    PrimaryIssue,
    Status,
    Summary,
    Template,
)
from models.wire.sealing import OpeningKey, open_message, padded, seal_envelope
from models.wire.topics import Down, Up, down, shard_of, up

from .conformance_lives import COLUMNS, MADE_AT, all_lives
from .conformance_site_rounds import site_round_vectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.wire.codec import Message

CONFORMANCE_VERSION = 1
MOST_BYTES = 300_000
NUM_ROWS = 60
DEVICE = DeviceId("device-1")
ISSUED = datetime(2026, 6, 1, 12, tzinfo=UTC)
SERVER_SEED, OTHER_SEED, DEVICE_SEED = (bytes(range(n, n + 32)) for n in (0, 32, 64))
BUNDLE_PREFIX = b"fedcell-bundle-v1:"
PROFILE = {
    "device_id": DEVICE,
    "device_model": "Conformance 1",
    "chemistry": "NMC111",
    "design_capacity_mah": 3000.0,
    "end_of_life_capacity_mah": 2400.0,
    "manufactured_at": MADE_AT,
}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        folder: where.
        files: sizes by name, bytes.
        kept: sealed messages that were kept as they were.
    """

    folder: Path
    files: Mapping[str, int]
    kept: int


def write_conformance_vectors(folder: Path) -> Written:
    """Compute all vectors and write them, the manifest last.

    Args:
        folder: of the kit; sealed messages that it holds already are kept where they still open.

    Raises:
        ValueError: they would be larger than a package should carry.
    """
    former = folder / "sealing.json"
    sealed_before = json.loads(former.read_bytes())["sealed"] if former.exists() else []
    sealing, kept = _sealing(sealed_before)
    vectors = {
        "readings.json": _readings(),
        "outputs.json": _outputs(),
        "messages.json": _messages(),
        "signatures.json": _signatures(),
        "sealing.json": sealing,
        "site_rounds.json": site_round_vectors(_before(folder / "site_rounds.json")),
    }
    contents = {name: _compact(vectors[name]) for name in FILES}
    contents[MANIFEST] = _compact(_manifest(contents))
    size = sum(len(content) for content in contents.values())
    if size > MOST_BYTES:
        raise ValueError(f"the vectors have {size} bytes, at most {MOST_BYTES}")
    for name, content in contents.items():
        write_durably(folder / name, content)
    return Written(folder, {name: len(content) for name, content in contents.items()}, kept)


def _before(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_bytes()) if path.exists() else None


def _manifest(contents: Mapping[str, bytes]) -> dict[str, object]:
    bundle = load_bundle()
    return {
        "conformance_version": CONFORMANCE_VERSION,
        "feature_spec_version": feature_spec.FEATURE_SPEC_VERSION,
        "feature_spec_digest": feature_spec.digest(),
        "client_version": ".".join(map(str, CLIENT_VERSION)),
        "model_version": bundle.version,
        "bundle_digest": bundle.digest,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }


def _compact(value: object) -> bytes:
    """Return JSON that is small and still has a line for each entry of its lists of objects."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (text.replace("},{", "},\n{").replace("],[", "],\n[") + "\n").encode()


def _readings() -> dict[str, object]:
    cases = []
    for life in all_lives():
        case: dict[str, Any] = {
            "name": life.name,
            "profile": PROFILE,
            "recorded_at_s": life.recorded_at_s,
            "moments_s": list(life.moments_s),
            "readings": {"columns": list(COLUMNS), "rows": life.rows},
        }
        with tempfile.TemporaryDirectory() as folder:
            case["expected"] = computed(case, folder=Path(folder))
        cases.append(case)
    return {
        "what": "readings in recorded order -> what is refused, features, report",
        "features": list(feature_spec.FEATURE_NAMES),
        "tolerance": {"relative": 1e-3, "absolute": 1e-4},
        "cases": cases,
    }


def _outputs() -> dict[str, object]:
    bundle = load_bundle()
    rows = _feature_rows()
    predictor = Predictor(bundle)
    outputs = predictor.outputs(rows)
    return {
        "what": "features (null = not measured) -> outputs of the default bundle -> decisions",
        "model_version": bundle.version,
        "model_sha256": hashlib.sha256(bundle.model_bytes).hexdigest(),
        "tolerance": {"relative": 1e-4, "absolute": 1e-5},
        "features": [with_none(row) for row in rows],
        "outputs": {
            name: [
                with_none(row) if values.ndim > 1 else with_none(np.atleast_1d(row))[0]
                for row in values
            ]
            for name, values in outputs.items()
        },
        "threshold": bundle.threshold,
        "decisions": decisions(predictor, rows),
    }


def _feature_rows() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Draw rows within each feature's range, some with missing values, some beyond the range."""
    random = np.random.default_rng(7)
    low = np.array([feature.low for feature in feature_spec.FEATURES])
    high = np.array([feature.high for feature in feature_spec.FEATURES])
    rows = low + (high - low) * random.beta(1, 3, (NUM_ROWS, len(low)))
    rows[random.random(rows.shape) < 0.15] = np.nan
    rows[-2:] = [low - 1, 2 * high + 1]
    rows[-3] = np.nan
    return np.array([[float(f"{v:.7g}") for v in row] for row in rows], np.float32)


def _all_messages() -> list[Message]:
    def common(number: int) -> dict[str, Any]:
        return {"id": f"{number:032x}", "device": DEVICE, "sequence": number, "issued": ISSUED}

    bands: dict[str, Any] = {
        "urgency": Urgency.CRITICAL,
        "days_band": DaysBand.UNDER_7,
        "probability_band": ProbabilityBand.FROM_80,
        "health_band": HealthBand.FROM_70_TO_80,
        "confidence": Confidence.HIGH,
    }
    told: dict[str, Any] = {
        "flagged": True,
        "primary_issue": PrimaryIssue.CAPACITY_FADE,
        "criticality": Criticality.MEDIUM,
        "model_version": "default-0123456789ab",
        "language": "de",
    }
    quiet: dict[str, Any] = {"quiet_from_hour": 22, "quiet_until_hour": 7, "zone": "Europe/Berlin"}
    notice: dict[str, Any] = {
        "expires": ISSUED + timedelta(days=14),
        "correlation": f"{1:032x}",
        "template": Template.UNDER_7,
        "language": "de",
        "human_contact": "Grüße: +49 30 1234567",
        "version": 1,
    }
    return [
        Summary(**common(1), **bands, **told, **quiet, notices_wanted=True),
        Summary(**common(2), **bands, **(told | {"language": "en"}), notices_wanted=False),
        Notice(**common(3), **bands, **notice),
        Ack(**common(4), correlation=f"{3:032x}", state=NoticeState.ACCEPTED, version=4),
        Birth(
            **common(5),
            client_version="0.1.0",
            model_version="default-0123456789ab",
            feature_spec_version=feature_spec.FEATURE_SPEC_VERSION,
        ),
        Status(**common(6), presence=Presence.OFFLINE),
        Configuration(**common(7), expires=ISSUED + timedelta(days=90), training=False),
    ]


def _messages() -> dict[str, object]:
    devices = ("device-1", "a", "Ü-7", "m" * 64)
    kinds = [("up", kind.value) for kind in (Up.SUMMARY, Up.ACK, Up.STATUS)]
    kinds += [("dn", kind.value) for kind in (Down.NOTIFY, Down.CONFIG)]
    messages = [
        {"type": message.TYPE, "payload": encode(message).decode()} for message in _all_messages()
    ]
    status = encode(_all_messages()[5]).rstrip()
    refused = [
        ("not_json", status[:-1]),
        ("not_an_object", b"[]"),
        ("not_json", status[:-1] + b',"sequence":1}'),
        ("wrong_type", status.replace(b'"type":"status"', b'"type":"birth"')),
        ("missing_field", status.replace(b'"sequence":6,', b"")),
        ("bad_field", status.replace(b'"sequence":6', b'"sequence":-6')),
        ("bad_field", status.replace(b'"sequence":6', b'"sequence":9007199254740992')),
        ("bad_field", status.replace(b"offline", b"asleep")),
        ("bad_field", status.replace(b"device-1", b"device/1")),
    ]
    return {
        "what": "topics of a device, canonical bytes of messages (padding included), refusals",
        "topics": [
            {
                "device": device,
                "shard": shard_of(device),
                "direction": way,
                "kind": kind,
                "topic": up(device, Up(kind)) if way == "up" else down(device, Down(kind)),
            }
            for device in devices
            for way, kind in kinds
        ],
        "refused_devices": ["", "a/b", "a+b", "#", "$sys", "a b", "m" * 65, "fedcell-hub-2"],
        "messages": messages,
        "refused": [
            {"type": "status", "reason": reason, "payload_hex": payload.hex()}
            for reason, payload in refused
        ],
    }


def _signatures() -> dict[str, object]:
    server, other = (SigningKey.from_bytes(seed) for seed in (SERVER_SEED, OTHER_SEED))
    notice, configuration = encode(_all_messages()[2]), encode(_all_messages()[6])
    envelope = sign_payload(notice, server)
    value = json.loads(envelope)
    refused = [
        ("unknown_key", sign_payload(notice, other)),
        ("bad_signature", _json(value | {"sig": json.loads(sign_payload(b"{}", server))["sig"]})),
        ("bad_signature", _json(value | {"body": value["body"].replace("A", "B", 1)})),
        ("unknown_algorithm", _json(value | {"alg": "none"})),
        ("not_an_envelope", _json(value | {"sig": value["sig"] + "="})),
        ("not_an_envelope", _json({name: value[name] for name in ("alg", "kid", "body")})),
        ("not_json", envelope[:-9]),
    ]
    trusted = trusted_keys(server.verify_key)
    for reason, wrong in refused:
        _require_refusal(wrong, trusted, reason)
    bundle = load_bundle()
    signature = sign_bundle(bundle, key_id="release", private_key=SERVER_SEED).manifest["signature"]
    public = server.verify_key.to_bytes().hex()
    return {
        "what": "Ed25519 (RFC 8032): envelopes signed by the first key, which alone is trusted",
        "signed_prefix": SIGNED_PREFIX.decode(),
        "keys": [
            {
                "seed": seed.hex(),
                "public": key.verify_key.to_bytes().hex(),
                "key_id": key.verify_key.key_id,
            }
            for seed, key in ((SERVER_SEED, server), (OTHER_SEED, other))
        ],
        "envelopes": [
            {"payload": payload.decode(), "envelope": sign_payload(payload, server).decode()}
            for payload in (notice, configuration)
        ],
        "refused": [{"reason": reason, "envelope_hex": wrong.hex()} for reason, wrong in refused],
        "signed_bytes": [
            {
                "what": "signature of a bundle: the prefix and the digest of its manifest",
                "public": public,
                "signed_hex": (BUNDLE_PREFIX + bytes.fromhex(bundle.digest)).hex(),
                "signature": signature["value"],
            },
            {
                "what": "signature of a message: the prefix and the payload",
                "public": public,
                "signed_hex": (SIGNED_PREFIX + notice).hex(),
                "signature": server.sign(SIGNED_PREFIX + notice).hex(),
            },
        ],
    }


def _sealing(before: list[dict[str, str]]) -> tuple[dict[str, object], int]:
    server, key = SigningKey.from_bytes(SERVER_SEED), OpeningKey.from_bytes(DEVICE_SEED)
    trusted = trusted_keys(server.verify_key)
    sealed, kept = [], 0
    for message, kind in ((_all_messages()[2], Down.NOTIFY), (_all_messages()[6], Down.CONFIG)):
        topic, payload = down(DEVICE, kind), padded(encode(message))
        entry = {"topic": topic, "payload": payload.decode()}
        old = [e for e in before if {k: e[k] for k in entry} == entry]
        if old and _opens(bytes.fromhex(old[0]["message_hex"]), topic, trusted, key):
            sealed.append(entry | {"message_hex": old[0]["message_hex"]})
            kept += 1
            continue
        content = seal_envelope(sign_payload(payload, server), key.seal_key, topic=topic)
        sealed.append(entry | {"message_hex": content.hex()})
    first, topic = bytes.fromhex(sealed[0]["message_hex"]), sealed[0]["topic"]
    refused = [
        ("bad_seal", topic, first[:-1] + bytes([first[-1] ^ 1])),
        ("bad_seal", topic, first[:-1]),
        ("bad_seal", sealed[1]["topic"], first),
        ("sealed_to_another_key", topic, first[:1] + bytes(8) + first[9:]),
    ]
    return {
        "what": "HPKE in one shot (RFC 9180): X25519, HKDF-SHA256, ChaCha20Poly1305; signed inside",
        "info_prefix": "fedcell/v1/sealed\n",
        "device": {
            "private": DEVICE_SEED.hex(),
            "public": key.seal_key.to_bytes().hex(),
            "key_id": key.seal_key.key_id,
        },
        "signer": {
            "public": server.verify_key.to_bytes().hex(),
            "key_id": server.verify_key.key_id,
        },
        "sealed": sealed,
        "refused": [
            {"reason": reason, "topic": place, "message_hex": message.hex()}
            for reason, place, message in refused
        ],
    }, kept


def _opens(message: bytes, topic: str, trusted: Mapping[str, Any], key: OpeningKey) -> bool:
    try:
        open_message(message, topic=topic, trusted=trusted, opening_key=key)
    except WireError:
        return False
    return True


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _require_refusal(envelope: bytes, trusted: Mapping[str, Any], reason: str) -> None:
    try:
        open_signed(envelope, trusted)
    except WireError as error:
        if error.reason == reason:
            return
        raise ValueError(f"refused as {error.reason}, not as {reason}") from error
    raise ValueError(f"taken, but must be refused as {reason}")
