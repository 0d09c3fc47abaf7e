"""Errors of releases; each is one line that says what, where and what to do."""

from __future__ import annotations

from ..errors import ServerError


class ReleaseError(ServerError):
    """A release, a ring or what was signed for it cannot be used; nothing changed.

    Attributes:
        what: the release, ring or file.
    """

    exit_code = 5

    def __init__(self, what: object, wrong: str, remedy: str) -> None:
        """Say what, what is wrong with it and what to do."""
        self.what = str(what)
        super().__init__(f"{what}: {wrong}; {remedy}")


class ReleaseInputError(ReleaseError):
    """A file or a word of the operator cannot be used; nothing changed."""

    exit_code = 3


class ReleaseMissingError(ReleaseError):
    """A release, a file or a part is not there."""

    exit_code = 4
