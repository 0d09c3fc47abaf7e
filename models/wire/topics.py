"""Topic names: the fixed scheme, the checks of a device id, and who subscribes to what.

    fedcell/v1/{shard}/d/{device}/dn/{notify|config|cancel|answer|round}
    fedcell/v1/{shard}/d/{device}/up/{ack|outcome|summary|birth|status|contribution|...}

A shard is two hex digits of a hash of the device id: the hub subscribes plainly, by shard, because
a shared subscription can be joined by any device that may subscribe to it. Everything is QoS 1;
only status is retained.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from ..telemetry import DeviceId
from .errors import WireError

PREFIX = "fedcell/v1"
QOS = 1
MAX_DEVICE_ID_BYTES = 64
"""A device id is also the common name of a certificate (at most 64) and the MQTT client id."""
HUB_CLIENT_ID = "fedcell-hub"

_FORBIDDEN = re.compile(r"[+#/\x00-\x20\x7f]")
_SHARD = re.compile(r"[0-9a-f]{2}")


class Down(StrEnum):
    """What goes from the server to one device."""

    NOTIFY = "notify"
    CONFIG = "config"
    CANCEL = "cancel"
    ANSWER = "answer"
    ROUND = "round"


class Up(StrEnum):
    """What goes from one device to the server."""

    ACK = "ack"
    OUTCOME = "outcome"
    SUMMARY = "summary"
    BIRTH = "birth"
    STATUS = "status"
    CONTRIBUTION = "contribution"
    RECEIPT = "receipt"
    REQUEST = "request"
    REPLY = "reply"


RETAINED = frozenset({Up.STATUS})


@dataclass(frozen=True, slots=True)
class DeviceTopic:
    """A device's topic, taken apart: whose it is, and what goes there in which direction."""

    device: DeviceId
    kind: Down | Up


def checked_device_id(text: str) -> DeviceId:
    """Return a device id that is fit for topics and as a client id.

    Raises:
        WireError: `bad_device_id`: empty, longer than 64 bytes, with a separator, wildcard, space
            or control character, beginning with `$`, or reserved for the server.
    """
    if not text or len(text.encode("utf-8", "surrogatepass")) > MAX_DEVICE_ID_BYTES:
        detail = f"must have 1 to {MAX_DEVICE_ID_BYTES} bytes, got {text[:70]!r}"
        raise WireError("bad_device_id", detail)
    if _FORBIDDEN.search(text) or text.startswith("$") or not _is_utf8(text):
        detail = f"must not hold +, #, /, spaces or control characters, got {text!r}"
        raise WireError("bad_device_id", detail)
    if text.startswith(HUB_CLIENT_ID):
        detail = f"names that begin with {HUB_CLIENT_ID} are the server's, got {text!r}"
        raise WireError("bad_device_id", detail)
    return DeviceId(text)


def shard_of(device: str) -> str:
    """Return the shard of a device: the first two hex digits of SHA-256 of its id in UTF-8."""
    return hashlib.sha256(device.encode()).hexdigest()[:2]


def down(device: str, kind: Down) -> str:
    """Return the topic on which a device hears `kind`."""
    return _device_topic(device, "dn", kind)


def up(device: str, kind: Up) -> str:
    """Return the topic on which a device says `kind`."""
    return _device_topic(device, "up", kind)


def from_all_devices(kind: Up, *, shard: str = "+") -> str:
    """Return the filter under which the hub hears `kind` from all devices, or from one shard."""
    if shard != "+" and _SHARD.fullmatch(shard) is None:
        raise ValueError(f"shard must be two hex digits or +, got {shard!r}")
    return f"{PREFIX}/{shard}/d/+/up/{kind.value}"


def parse(topic: str) -> DeviceTopic:
    """Take a device's topic apart.

    Raises:
        WireError: `bad_topic` or `bad_device_id`; also where the shard is not the device's.
    """
    parts = topic.split("/")
    if len(parts) != 7 or "/".join(parts[:2]) != PREFIX or parts[3] != "d":
        raise WireError("bad_topic", f"not a device's topic: {topic[:120]!r}")
    _, _, shard, _, name, direction, kind = parts
    device = checked_device_id(name)
    if shard != shard_of(device):
        raise WireError("bad_topic", f"shard {shard!r} is not that of device {device!r}")
    try:
        if direction == "up":
            return DeviceTopic(device, Up(kind))
        if direction == "dn":
            return DeviceTopic(device, Down(kind))
    except ValueError:
        pass
    raise WireError("bad_topic", f"no such kind of message: {direction}/{kind[:40]!r}")


def _device_topic(device: str, direction: str, kind: Down | Up) -> str:
    shard = shard_of(checked_device_id(device))
    return f"{PREFIX}/{shard}/d/{device}/{direction}/{kind.value}"


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
