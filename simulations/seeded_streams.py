"""Keys of simulated streams: from a seed, so that a run repeats, and stamped so in every entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .seeded_noise import SeededStream, seeded_key

if TYPE_CHECKING:
    from privacy import StreamPolicy


class SeededKeys:
    """Keys that a seed gives; nothing made under them is ever released.

    Args:
        seed: of the simulation.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def new_key(self, policy: StreamPolicy) -> bytes:
        """Return the key of a stream."""
        return seeded_key(self._seed, stream=policy.stream)

    def noise(
        self, key: bytes, policy: StreamPolicy, *, next_index: int, size: int
    ) -> SeededStream:
        """Return the noise of a stream as it stands before step `next_index`."""
        return SeededStream.resumed(key, policy, next_index, size)
