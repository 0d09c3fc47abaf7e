"""What a device and its fleet's authority say to each other over HTTPS, once and at renewals.

A request is a JSON object of two strings: `said`, itself a JSON object, and `signature` (hex), made
with the device's own Ed25519 key over a prefix and the bytes of `said`. So whoever enrols holds the
key that it brings, and whoever renews holds the key that enrolled: a certificate that is over does
not stand in the way. No time is in a request, for clocks of devices are wrong.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from .envelope import VerifyKey
from .errors import SignatureError, WireError
from .topics import checked_device_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .envelope import SigningKey

ENROL_PATH = "/v1/enrol"
RENEW_PATH = "/v1/renew"
AUTHORITIES_PATH = "/v1/authorities.pem"
TIME_PATH = "/v1/time"
MAX_BODY_BYTES = 16_384
"""Of a request or an answer; a usual one has 2 to 4 KB."""
MAX_TEXT = 6_000
_ENROL_PREFIX = b"fedcell/v1/enrol\n"
_RENEW_PREFIX = b"fedcell/v1/renew\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """What a device brings to be enrolled; the token never stands in its repr.

    Attributes:
        device_id: its name.
        token: the one-time token that it was given.
        certificate_request: PKCS 10 in PEM form, for MQTT.
        sign: its Ed25519 public key, 64 hex digits.
        seal: its X25519 public key, to which notices are sealed, 64 hex digits.
        supernode: its public key for Flower in OpenSSH form, empty for none.
    """

    device_id: str
    token: str
    certificate_request: str
    sign: str
    seal: str
    supernode: str = ""

    def __repr__(self) -> str:
        """Name the device alone."""
        return f"EnrolmentRequest({self.device_id!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRequest:
    """What a device brings for a new certificate.

    Attributes:
        device_id: its name.
        replaces: serial number of the certificate that it holds, 40 hex digits.
        certificate_request: PKCS 10 in PEM form, for a new key.
    """

    device_id: str
    replaces: str
    certificate_request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentAnswer:
    """What a device is given, at its enrolment and at each renewal.

    Attributes:
        device_id: whose certificate it is.
        certificate: for MQTT, in PEM form.
        authorities: who may speak for the broker and for the enrolment service, PEM.
        broker: `host:port`.
        server_keys: Ed25519 keys (hex) that sign what the server says, by key id.
        time: the server's clock.
        superlink: `host:port` where nodes meet the fleet's SuperLink, empty where it has none.
    """

    device_id: str
    certificate: str
    authorities: str
    broker: str
    server_keys: Mapping[str, str]
    time: datetime
    superlink: str = ""


Request = TypeVar("Request", EnrolmentRequest, RenewalRequest)


def signed_enrolment(request: EnrolmentRequest, key: SigningKey) -> bytes:
    """Return the body of an enrolment."""
    return _signed(request, key, _ENROL_PREFIX)


def signed_renewal(request: RenewalRequest, key: SigningKey) -> bytes:
    """Return the body of a renewal."""
    return _signed(request, key, _RENEW_PREFIX)


def read_enrolment(body: bytes) -> EnrolmentRequest:
    """Read the body of an enrolment, signed by the key that it brings.

    Raises:
        WireError: it is none.
        SignatureError: it is signed by another key.
    """
    said, signature = _parts(body)
    request = _request(EnrolmentRequest, said)
    for name in ("sign", "seal"):
        _hex_bytes(getattr(request, name), 32)
    key = VerifyKey.from_bytes(bytes.fromhex(request.sign))
    key.verify(signature, _ENROL_PREFIX + said)
    return request


def read_renewal(body: bytes) -> RenewalRequest:
    """Read the body of a renewal without believing it: `verify_renewal` does, with the key."""
    said, _ = _parts(body)
    request = _request(RenewalRequest, said)
    _hex_bytes(request.replaces, 20)
    return request


def verify_renewal(body: bytes, key: VerifyKey) -> None:
    """Check that a renewal is signed by the key that enrolled.

    Raises:
        SignatureError: it is not.
    """
    said, signature = _parts(body)
    key.verify(signature, _RENEW_PREFIX + said)


def answer_bytes(answer: EnrolmentAnswer) -> bytes:
    """Return an answer as it travels."""
    content = asdict(answer) | {"time": answer.time.isoformat()}
    return json.dumps(content, sort_keys=True).encode()


def read_answer(body: bytes) -> EnrolmentAnswer:
    """Read an answer; what its certificates are worth is looked at elsewhere.

    Raises:
        WireError: it is none.
    """
    content = _object(body)
    try:
        keys = content["server_keys"]
        answer = EnrolmentAnswer(
            device_id=checked_device_id(_text(content["device_id"])),
            certificate=_text(content["certificate"]),
            authorities=_text(content["authorities"]),
            broker=_text(content["broker"]),
            server_keys={_text(name): _text(value) for name, value in keys.items()},
            time=datetime.fromisoformat(_text(content["time"])),
            superlink=_text(content.get("superlink", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise WireError("bad_answer", "not an answer of an enrolment service") from None
    for value in answer.server_keys.values():
        _hex_bytes(value, 32)
    if answer.time.tzinfo is None:
        raise WireError("bad_answer", "its time has no zone")
    return answer


def _signed(request: EnrolmentRequest | RenewalRequest, key: SigningKey, prefix: bytes) -> bytes:
    said = json.dumps(asdict(request), sort_keys=True)
    signature = key.sign(prefix + said.encode()).hex()
    return json.dumps({"said": said, "signature": signature}).encode()


def _parts(body: bytes) -> tuple[bytes, bytes]:
    content = _object(body)
    said, signature = content.get("said"), content.get("signature")
    if not isinstance(said, str) or not isinstance(signature, str):
        raise WireError("bad_request", "said and signature must be strings")
    try:
        return said.encode(), bytes.fromhex(signature)
    except ValueError:
        raise SignatureError("bad_signature", "no signature in hex") from None


def _request(kind: type[Request], said: bytes) -> Request:
    content = _object(said)
    names = [entry.name for entry in fields(kind)]
    try:
        values = {name: _text(content[name]) for name in names if name in content}
        request = kind(**values)
    except (TypeError, ValueError):
        raise WireError("bad_request", f"must hold the texts {', '.join(names)}") from None
    checked_device_id(request.device_id)
    return request


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise WireError("too_large", f"has {len(body)} bytes, at most {MAX_BODY_BYTES} are read")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise WireError("not_json", "is no JSON") from None
    if not isinstance(content, dict):
        raise WireError("not_json", "is no JSON object")
    return content


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError("no text, or too long a one")
    return value


def _hex_bytes(text: str, num_bytes: int) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != num_bytes or text != raw.hex():
        raise WireError("bad_request", f"{text[:20]!r} is not {num_bytes} bytes in hex")
    return raw
