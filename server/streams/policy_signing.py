"""The policy of a stream, signed: what devices check each task against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.wire.envelope import sign_payload

if TYPE_CHECKING:
    from models.wire.envelope import SigningKey
    from privacy import StreamPolicy


def signed_policy(policy: StreamPolicy, key: SigningKey) -> str:
    """Return the envelope of a policy as JSON text, as tasks carry it.

    Args:
        policy: of the stream.
        key: of the operator; devices trust its public half for policies.

    Raises:
        MessageTooLargeError: it would not fit into a message.
    """
    return sign_payload(policy.to_bytes(), key).decode("ascii")
