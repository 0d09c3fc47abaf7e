"""The policy of a stream, signed: what devices check each task against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.wire.codec import parse_object
from models.wire.envelope import open_signed, sign_payload
from privacy import StreamPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.wire.envelope import SigningKey, VerifyKey


def signed_policy(policy: StreamPolicy, key: SigningKey) -> str:
    """Return the envelope of a policy as JSON text, as tasks carry it.

    Args:
        policy: of the stream.
        key: of the operator; devices trust its public half for policies.

    Raises:
        MessageTooLargeError: it would not fit into a message.
    """
    return sign_payload(policy.to_bytes(), key).decode("ascii")


def verified_policy(envelope: str, trusted: Mapping[str, VerifyKey]) -> StreamPolicy:
    """Return the policy of an envelope whose signature holds.

    Args:
        envelope: as a task carries it.
        trusted: keys that may sign policies, by key id.

    Raises:
        WireError: it is no envelope, or nobody who is trusted signed it.
        ValueError: what was signed is no policy.
    """
    payload = open_signed(envelope.encode(), trusted)
    return StreamPolicy.from_json(parse_object(payload))
