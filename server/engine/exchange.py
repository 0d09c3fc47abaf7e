"""Sends messages over Flower's grid and brings their replies until a deadline.

Flower's own loop cannot stop or wait until a deadline, and a look for the reply of a node that is
away makes its SuperLink forget the message. So messages are pushed and pulled here. Nothing is
decided here.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

from .reply_pull import reply_source

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flwr.app import Message
    from flwr.serverapp import Grid

MESSAGES_AT_A_TIME = 32
"""Messages that are handed to Flower's grid at once."""
ASKED_AT_A_TIME = 256
"""Messages whose replies are asked for in one request."""
LONGEST_POLL_S = 2.0
"""Longest pause between two looks for replies, while none comes."""
POLL_SHARE = 0.05
"""Share of the time since the last reply that the next pause may take."""
CLOCK_TOLERANCE_S = 43_200.0
"""How long a message outlives the wait for its reply: a node works out the life of its reply by its
own clock, and one that is further ahead cannot answer."""
REPLY_BYTES = 262_144
"""Length of a reply that holds no array."""


def exchange(
    grid: Grid,
    messages: Iterable[Message],
    *,
    deadline_s: float,
    stop: threading.Event,
    poll_s: float,
    sent: dict[str, int] | None = None,
    on_look: Callable[[], None] | None = None,
    most_bytes: int = REPLY_BYTES,
) -> Iterator[Message]:
    """Send messages and yield each reply as it comes, until all came, the deadline, or the stop.

    Messages and replies pass a few at a time, so that memory does not grow with their number. While
    nothing comes the looks become rarer, up to one in `LONGEST_POLL_S`: a wait is never longer by
    more than a share of itself. The deadline is looked at before each request; what one request
    brought has come in time and counts. A node that is away is not asked for before it is
    back, or the time is over: Flower would drop its message, and its reply where that came.

    Args:
        grid: Flower's way to the nodes.
        messages: at most one a node.
        deadline_s: how long to wait, once all are sent.
        stop: set from outside to end the wait.
        poll_s: shortest pause between two looks.
        sent: takes the node of each message that was sent, by the message's identifier.
        on_look: called before each look for replies; may end the wait by raising.
        most_bytes: length of a reply; a longer one is not read on.
    """
    sent = {} if sent is None else sent
    source = reply_source(grid, most_bytes=most_bytes)
    ttl_s = deadline_s + CLOCK_TOLERANCE_S
    sent.update(push(grid, messages, stop=stop, ttl_s=ttl_s))
    waiting = dict(sent)
    heard_at = time.monotonic()
    end = heard_at + deadline_s
    shortest = max(poll_s, source.least_pause_s)

    def goes_on() -> bool:
        return time.monotonic() < end and not stop.is_set()

    while waiting and goes_on():
        has_heard = False
        here = set(grid.get_node_ids())
        for some in _in_batches([key for key, node_id in waiting.items() if node_id in here]):
            while (left := [key for key in some if key in waiting]) and goes_on():
                if on_look is not None:
                    on_look()
                num_waiting = len(waiting)
                for reply in source.pull(left):
                    heard_at = time.monotonic()
                    waiting.pop(reply.metadata.reply_to_message_id, None)
                    yield reply
                if len(waiting) == num_waiting:
                    break
                has_heard = True
        now = time.monotonic()
        pause = source.least_pause_s if has_heard else pause_s(now - heard_at, shortest_s=shortest)
        if waiting and pause > 0.0:
            stop.wait(min(pause, max(end - now, 0.0)))
    if waiting and not stop.is_set():
        here = set(grid.get_node_ids())
        for some in _in_batches([key for key, node_id in waiting.items() if node_id not in here]):
            yield from source.pull(some)


def pause_s(silent_s: float, *, shortest_s: float) -> float:
    """Return how long to pause before the next look for replies, in seconds.

    Args:
        silent_s: time since the last reply came.
        shortest_s: shortest pause.
    """
    return max(shortest_s, min(POLL_SHARE * silent_s, LONGEST_POLL_S))


def pull_some(grid: Grid, message_ids: Iterable[str]) -> Iterator[Message]:
    """Yield what has come to messages whose time is over, without waiting for more."""
    source = reply_source(grid, most_bytes=REPLY_BYTES)
    for some in _in_batches(tuple(message_ids)):
        yield from source.pull(some)


def push(
    grid: Grid, messages: Iterable[Message], *, stop: threading.Event, ttl_s: float
) -> dict[str, int]:
    """Send messages a few at a time.

    Args:
        grid: Flower's way to the nodes.
        messages: at most one a node.
        stop: ends the sending.
        ttl_s: how long Flower keeps each, in seconds.

    Returns:
        The node of each message that the grid took, by the message's identifier.
    """
    sent: dict[str, int] = {}
    left = iter(messages)
    while not stop.is_set() and (some := list(islice(left, MESSAGES_AT_A_TIME))):
        for message in some:
            message.metadata.ttl = ttl_s
        taken = set(grid.push_messages(some))
        sent |= {
            message.metadata.message_id: message.metadata.dst_node_id
            for message in some
            if message.metadata.message_id in taken
        }
    return sent


def _in_batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), ASKED_AT_A_TIME):
        yield keys[start : start + ASKED_AT_A_TIME]
