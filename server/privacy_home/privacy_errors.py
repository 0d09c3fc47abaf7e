"""Why a privacy home, a key or a stream's state cannot be used: where, what and what to do."""

from __future__ import annotations

from ..errors import PlacedError


class PrivacyHomeError(PlacedError):
    """A privacy home cannot be used as it is; nothing was written.

    Attributes:
        where: the file or folder.
    """


class HomeMissingError(PrivacyHomeError):
    """There is no privacy home."""

    exit_code = 4


class HomeUnavailableError(PrivacyHomeError):
    """The home is held by another process, or its disk is full or read-only."""

    exit_code = 6


class HomeBrokenError(PrivacyHomeError):
    """The ledger or the counts do not verify, or one of them is older than the other."""

    exit_code = 5


class StreamKeyError(PrivacyHomeError):
    """The key of a stream, or the operator's key over it, cannot be used."""


class StreamRefusedError(PrivacyHomeError):
    """A stream must not go on: what is here is older than what was released, or not its own."""

    exit_code = 5
