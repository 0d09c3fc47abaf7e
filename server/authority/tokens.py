"""One-time tokens: made at random, shown once, kept as a hash, and good for one device."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING

from ..storage.enrolments import Enrolments, KeptToken

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

TOKEN = re.compile(r"fct_[A-Za-z0-9_-]{43}")
"""A prefix by which scanners for leaked secrets know it, and 256 random bits."""


def make_token(
    connection: Connection, *, life: timedelta, now: datetime, device_id: str | None = None
) -> str:
    """Make a token, keep its hash, and return it; it cannot be read again.

    Args:
        connection: a transaction.
        life: for how long it can be used.
        now: aware time.
        device_id: the only device that may use it; it may have been enrolled before.
    """
    token = f"fct_{secrets.token_urlsafe(32)}"
    kept = KeptToken(token_hash=token_hash(token), device_id=device_id, expires_at=now + life)
    Enrolments(connection).add_token(kept, now=now)
    return token


def token_hash(token: str) -> str:
    """Return what is kept of a token: nobody finds 256 random bits by trying."""
    return hashlib.sha256(token.encode()).hexdigest()
