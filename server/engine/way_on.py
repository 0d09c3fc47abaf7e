"""Whether a run has a way to the rounds that it has left, looked at before anybody is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..privacy_home.privacy_errors import StreamRefusedError
from ..streams.stream_files import OPEN_A_NEW_STREAM
from .group_rule import NodeGroups
from .rounds import RoundsError

if TYPE_CHECKING:
    from .flower_messages import Roster
    from .strategy import FederatedRounds


def require_way_on(rounds: FederatedRounds) -> None:
    """Refuse a run that has rounds left and no way to them.

    Raises:
        RoundsError: it is to stop early, and nobody looks at public data.
        StreamRefusedError: its stream was ended before its time, and its key is destroyed.
    """
    if rounds.config.patience and rounds.evaluate is None:
        raise RoundsError("patience needs public data to look at; leave it out")
    has_ended = rounds.stream.secrets is None and rounds.stream.terms.policy is not None
    if has_ended and not rounds.is_over():
        what = f"ended with step {rounds.stream.next_index - 1}, and its key is destroyed"
        raise StreamRefusedError(rounds.stream.folder, what, OPEN_A_NEW_STREAM)


def groups_over(roster: Roster, *, num_groups: int) -> NodeGroups:
    """Spread the nodes of a run over groups.

    Raises:
        RoundsError: there are too few nodes.
    """
    try:
        return NodeGroups.of(roster.reached, num_groups=num_groups)
    except ValueError as error:
        raise RoundsError(f"{error}; say fewer groups, or spread devices over more nodes") from None
