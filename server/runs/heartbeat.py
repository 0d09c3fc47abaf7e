"""Signs of life while a run does what tells no progress: counts, or a look at its weights."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEAT_S: Final = 5.0
"""Between two signs of life: well below the silence after which another host takes it for dead."""


@contextmanager
def beating(beat: Callable[[], None], *, every_s: float = BEAT_S) -> Iterator[None]:
    """Give signs of life from a thread of its own, until the block ends.

    Args:
        beat: gives one; nobody else may give any meanwhile.
        every_s: between two of them, seconds.
    """
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(every_s):
            beat()

    thread = threading.Thread(target=go_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
