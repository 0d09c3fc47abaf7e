"""The signed policy that a task brings: believed only under a key that the device was given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from models.wire.envelope import VerifyKey, open_signed
from models.wire.errors import SignatureError, WireError
from privacy.budget import Refusal
from privacy.policy import GREATEST_DELTA, GREATEST_EPSILON, StreamPolicy

from ..errors import ParticipationRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNREADABLE: Final = (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a policy raises, and the arithmetic on constants that nobody has checked."""


def verified_policy(envelope: str, keys: Mapping[str, bytes]) -> StreamPolicy:
    """Return the policy in an envelope whose signature holds.

    Args:
        envelope: of the task, as JSON text.
        keys: Ed25519 public keys (32 raw bytes) that may sign policies, by key id.

    Raises:
        ParticipationRefusedError: it is missing, not signed by one of the keys, not canonical,
            its constants contradict each other, or its δ or ε is too great; `refusal` says which.
    """
    if not envelope:
        raise refused(Refusal.POLICY_MISSING, "the task brings no signed policy")
    body = opened(envelope, keys)
    try:
        value: Any = json.loads(body)
        if _has_too_many_bands(value):
            what = "the noise has more bands than rounds lie between two participations"
            raise refused(Refusal.TOO_MANY_BANDS, what)
        policy = StreamPolicy.from_json(value)
        is_canonical = policy.to_bytes() == body
    except _UNREADABLE as error:
        raise refused(Refusal.POLICY_UNREADABLE, str(error)) from None
    privacy = policy.privacy
    if privacy.delta > GREATEST_DELTA:
        what = f"delta is {privacy.delta:g}, above {GREATEST_DELTA:g}"
        raise refused(Refusal.DELTA_TOO_GREAT, what)
    if privacy.epsilon > GREATEST_EPSILON:
        what = f"epsilon is {privacy.epsilon:g}, above {GREATEST_EPSILON:g}"
        raise refused(Refusal.EPSILON_TOO_GREAT, what)
    if not is_canonical:
        # Two texts of one policy would have two names.
        raise refused(Refusal.POLICY_UNREADABLE, "the policy is not in its canonical form")
    return policy


def opened(envelope: str, keys: Mapping[str, bytes]) -> bytes:
    """Return what one of the keys has signed.

    Raises:
        ParticipationRefusedError: none of them has.
    """
    try:
        return open_signed(envelope.encode(), trusted_verifiers(keys))
    except SignatureError as error:
        is_unknown = error.reason == "unknown_key"
        why = Refusal.POLICY_KEY_UNKNOWN if is_unknown else Refusal.POLICY_NOT_SIGNED
        raise refused(why, str(error)) from None
    except WireError as error:
        raise refused(Refusal.POLICY_NOT_SIGNED, str(error)) from None


def trusted_verifiers(keys: Mapping[str, bytes]) -> dict[str, VerifyKey]:
    """Return keys as signatures are checked with them."""
    return {key_id: VerifyKey.from_bytes(raw) for key_id, raw in keys.items()}


def refused(refusal: Refusal, what: str) -> ParticipationRefusedError:
    """Return the error of a rule that refuses."""
    return ParticipationRefusedError(refusal.value, what)


def _has_too_many_bands(value: Any) -> bool:
    constants = value["privacy"] if isinstance(value, dict) and "privacy" in value else None
    if not isinstance(constants, dict):
        return False
    bands, separation = constants.get("bands"), constants.get("min_separation")
    return isinstance(bands, int) and isinstance(separation, int) and bands > separation
