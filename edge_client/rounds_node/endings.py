"""What it means that a SuperNode ended, and how long to wait before it is started again.

Flower ends a SuperNode for things that pass: a session of its own from before that has not expired
(a minute at most), a SuperLink that closes in the middle of a handshake. Each is waited out. What
waiting does not mend ends the command: a key that the SuperLink does not know is refused with the
same code as an old session, and told apart by how long it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ..errors import NodeRefusedError

if TYPE_CHECKING:
    from random import Random

ACTIVATION_FAILED = 2004
"""Flower's code of a node that may not be activated: its session lives, or its key is unknown."""
SESSION_LIFE_S = 60.0
"""After so long without a heartbeat Flower lets a session expire."""
REFUSED_FOR_S = 3 * SESSION_LIFE_S
"""A node that is refused for longer is refused for its key."""
LONGEST_SESSION_WAIT_S = 15.0
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 120.0
STEADY_S = 30.0
"""A SuperNode that ran for so long begins with short waits again."""
_MOST_DOUBLINGS = 16


class Ending(StrEnum):
    """Why a SuperNode ended, or was not started."""

    OLD_SESSION = "old_session"
    NOT_AUTHENTICATED = "not_authenticated"
    UNREACHABLE = "unreachable"
    EXECUTOR_LOST = "executor_lost"
    STUCK = "stuck"
    LOST = "lost"


WORDS = {
    Ending.OLD_SESSION: "the SuperLink still holds this node's session from before, or does not"
    " know its key",
    Ending.NOT_AUTHENTICATED: "the SuperLink does not take this node's signature: its key was"
    " withdrawn, or this device's clock is off by five minutes",
    Ending.UNREACHABLE: "the SuperLink does not answer",
    Ending.EXECUTOR_LOST: "the SuperExec ended by itself; its SuperNode would wait for ever for"
    " what it had begun",
    Ending.STUCK: "the app gave no answer in the time of its message",
    Ending.LOST: "the SuperNode ended by itself",
}


def told_ending(code: int | None) -> Ending | None:
    """Say what Flower's code of why no connection came about means, None where that is nothing."""
    return Ending.OLD_SESSION if code == ACTIVATION_FAILED else None


def ending_of(told: Ending | None, *, exit_code: int) -> Ending:
    """Say why a SuperNode ended that nobody stopped.

    Args:
        told: what it said itself.
        exit_code: of the process.
    """
    if told is not None:
        return told
    # Flower ends a node with 0 on a signal: one that nobody sent is its own, on HTTP status 401.
    return Ending.NOT_AUTHENTICATED if exit_code == 0 else Ending.LOST


@dataclass(slots=True)
class Patience:
    """How long a node waits before it is started again.

    Attributes:
        superlink: its address, for what is said.
        jitter: source of random waits.
    """

    superlink: str
    jitter: Random
    _tries: int = 0
    _refused_since_s: float | None = None
    _connected_s: float | None = None

    def connected(self, elapsed_s: float) -> None:
        """Note that the SuperLink has let the node in.

        Args:
            elapsed_s: on a clock that never jumps.
        """
        self._connected_s, self._refused_since_s = elapsed_s, None

    def wait_after(self, ending: Ending, *, elapsed_s: float) -> float:
        """Return the seconds to wait.

        Args:
            ending: why the node ended.
            elapsed_s: on a clock that never jumps.

        Raises:
            NodeRefusedError: it is refused for its key; waiting does not mend that.
        """
        if self._connected_s is not None and elapsed_s - self._connected_s >= STEADY_S:
            self._tries = 0
        self._connected_s = None
        longest = LONGEST_WAIT_S
        if ending is Ending.OLD_SESSION:
            longest = LONGEST_SESSION_WAIT_S
            self._bear_refusal(elapsed_s)
        bound = min(longest, FIRST_WAIT_S * 2.0**self._tries)
        self._tries = min(self._tries + 1, _MOST_DOUBLINGS)
        return self.jitter.uniform(bound / 2, bound)

    def _bear_refusal(self, elapsed_s: float) -> None:
        if self._refused_since_s is None:
            self._refused_since_s = elapsed_s
        if elapsed_s - self._refused_since_s < REFUSED_FOR_S:
            return
        what = "does not know this device's key, or another node holds it"
        remedy = (
            "the operator registers it ('fedcell fleet supernode-keys'); a device that was shut"
            " out joins anew with a new token: fedcell-device join URL --token T --anew"
        )
        raise NodeRefusedError(self.superlink, what, remedy)
