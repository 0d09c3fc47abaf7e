"""The vectors of what passes on the wire: topics, bytes, signatures, sealing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .comparing import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Vectors = Mapping[str, Any]


def check_messages(vectors: Vectors) -> Iterator[str | None]:
    """Check topics, canonical bytes and refusals; yields what differs."""
    from models.wire.codec import decode, encode
    from models.wire.errors import WireError
    from models.wire.messages import MESSAGES
    from models.wire.topics import Down, Up, checked_device_id, down, shard_of, up

    for entry in vectors["topics"]:
        device, kind = entry["device"], entry["kind"]
        is_down = entry["direction"] == "dn"
        found = down(device, Down(kind)) if is_down else up(device, Up(kind))
        same = (found, shard_of(entry["device"])) == (entry["topic"], entry["shard"])
        yield None if same else f"topic of {entry['device']}: {found}"
    for text in vectors["refused_devices"]:
        yield refusal(partial(checked_device_id, text), WireError, "bad_device_id")
    types = {message.TYPE: message for message in MESSAGES.values()}
    for entry in vectors["messages"]:
        payload = entry["payload"].encode()
        found_bytes = encode(decode(payload, types[entry["type"]]))
        yield None if found_bytes == payload else f"bytes of {entry['type']}: {found_bytes!r}"
    for entry in vectors["refused"]:
        yield refusal(
            partial(decode, bytes.fromhex(entry["payload_hex"]), types[entry["type"]]),
            WireError,
            entry["reason"],
        )


def check_signatures(vectors: Vectors) -> Iterator[str | None]:
    """Check key ids, envelopes, a bundle's signature and refusals; yields what differs."""
    from models.wire.envelope import SigningKey, VerifyKey, open_signed, sign_payload, trusted_keys
    from models.wire.errors import WireError

    keys = [SigningKey.from_bytes(bytes.fromhex(key["seed"])) for key in vectors["keys"]]
    for key, entry in zip(keys, vectors["keys"], strict=True):
        found = (key.verify_key.to_bytes().hex(), key.verify_key.key_id)
        yield None if found == (entry["public"], entry["key_id"]) else f"key {found[1]}"
    trusted = trusted_keys(keys[0].verify_key)
    for entry in vectors["envelopes"]:
        payload, envelope = entry["payload"].encode(), entry["envelope"].encode()
        same = sign_payload(payload, keys[0]) == envelope
        same = same and open_signed(envelope, trusted) == payload
        yield None if same else f"envelope of {entry['payload'][:40]}"
    for entry in vectors["refused"]:
        envelope = bytes.fromhex(entry["envelope_hex"])
        yield refusal(partial(open_signed, envelope, trusted), WireError, entry["reason"])
    for entry in vectors["signed_bytes"]:
        public = VerifyKey.from_bytes(bytes.fromhex(entry["public"]))
        signed, signature = bytes.fromhex(entry["signed_hex"]), bytes.fromhex(entry["signature"])
        try:
            public.verify(signature, signed)
            yield None
        except WireError as error:
            yield f"{entry['what']}: {error}"


def check_sealing(vectors: Vectors) -> Iterator[str | None]:
    """Open what was sealed, seal and open again, and check refusals; yields what differs."""
    from models.wire.envelope import VerifyKey, trusted_keys
    from models.wire.errors import WireError
    from models.wire.sealing import OpeningKey, open_message

    key = OpeningKey.from_bytes(bytes.fromhex(vectors["device"]["private"]))
    found = (key.seal_key.to_bytes().hex(), key.seal_key.key_id)
    same = found == (vectors["device"]["public"], vectors["device"]["key_id"])
    yield None if same else f"sealing key {found[1]}"
    trusted = trusted_keys(VerifyKey.from_bytes(bytes.fromhex(vectors["signer"]["public"])))
    for entry in vectors["sealed"]:
        opened = open_message(
            bytes.fromhex(entry["message_hex"]),
            topic=entry["topic"],
            trusted=trusted,
            opening_key=key,
        )
        yield None if opened == entry["payload"].encode() else f"payload on {entry['topic']}"
        plain = b"sealed here"
        again = key.open(key.seal_key.seal(plain, topic=entry["topic"]), topic=entry["topic"])
        yield None if again == plain else f"sealing on {entry['topic']}"
    for entry in vectors["refused"]:
        message, topic = bytes.fromhex(entry["message_hex"]), entry["topic"]
        yield refusal(
            partial(open_message, message, topic=topic, trusted=trusted, opening_key=key),
            WireError,
            entry["reason"],
        )
