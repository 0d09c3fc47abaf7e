"""A tap on a device's wires: what it sends, to the byte, and the page that may name it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "what-leaves.md"
CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 4, 8, 12, 14
LINK_PACKETS = {CONNECT, PUBACK, SUBSCRIBE, PINGREQ, DISCONNECT}


def named_on_the_page() -> dict[str, set[str]]:
    """Return the fields that the published page names, by message; arrivals are not among them."""
    leaving = PAGE.read_text().partition("# What arrives")[0]
    sections = re.split(r"^## ", leaving, flags=re.MULTILINE)[1:]
    return {
        section.splitlines()[0]: set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))
        for section in sections
    }


class Packet(NamedTuple):
    """One MQTT packet: its type, flags, and all that follows the length."""

    kind: int
    flags: int
    body: bytes

    @property
    def topic(self) -> str:
        """Of a PUBLISH."""
        return self.body[2 : 2 + int.from_bytes(self.body[:2])].decode()

    @property
    def payload(self) -> bytes:
        """Of a PUBLISH: after topic, packet id (above QoS 0) and the properties of MQTT 5."""
        start = 2 + int.from_bytes(self.body[:2]) + (2 if self.flags & 0b110 else 0)
        length, size = _varint(self.body[start:])
        return self.body[start + size + length :]


def packets_in(connections: Iterable[bytes]) -> list[Packet]:
    """Cut every byte of some connections into packets; a byte that belongs to none is an error."""
    return [packet for sent in connections for packet in _packets(bytes(sent))]


def will_of(packet: Packet) -> tuple[str, bytes]:
    """Return topic and payload of the last will in a CONNECT of MQTT 5."""
    body = packet.body[6:]
    assert body[0] == 5, "not MQTT 5"
    has_will = body[1] & 0b100
    assert has_will
    rest = _after_properties(body[4:])
    _client_id, rest = _text(rest)
    topic, rest = _text(_after_properties(rest))
    payload, _rest = _text(rest)
    return topic.decode(), payload


def _packets(sent: bytes) -> list[Packet]:
    found = []
    while sent:
        length, size = _varint(sent[1:])
        end = 1 + size + length
        assert len(sent) >= end, "a packet was cut off"
        found.append(Packet(sent[0] >> 4, sent[0] & 0xF, sent[1 + size : end]))
        sent = sent[end:]
    return found


def _varint(data: bytes) -> tuple[int, int]:
    value = 0
    for position in range(4):
        value |= (data[position] & 0x7F) << (7 * position)
        if not data[position] & 0x80:
            return value, position + 1
    raise AssertionError("no variable byte integer")


def _after_properties(data: bytes) -> bytes:
    length, size = _varint(data)
    return data[size + length :]


def _text(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:2])
    return data[2 : 2 + length], data[2 + length :]
