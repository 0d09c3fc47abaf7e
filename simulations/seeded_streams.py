"""Streams of a simulation: their keys come from a seed, so that a run repeats as a whole.

Every ledger entry made under such a key is stamped `simulated`, and is refused as the basis of a
release. No production path can reach this module.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from privacy.streams import CorrelatedNoise

if TYPE_CHECKING:
    from privacy import EntryKind, StreamPolicy


class SeededStream(CorrelatedNoise):
    """Correlated noise under a key that a seed gives: its entries are stamped `simulated`."""

    @property
    def entry_kind(self) -> EntryKind:
        """`simulated`: never a basis for a release."""
        return "simulated"


def seeded_key(seed: int, *, stream: str) -> bytes:
    """The 256-bit key of a simulated stream."""
    return hashlib.sha256(f"stream\n{seed}\n{stream}".encode()).digest()


def seeded_stream(seed: int, policy: StreamPolicy) -> SeededStream:
    """The noise of a simulated stream from its first step, equal for equal seeds and streams."""
    return SeededStream(seeded_key(seed, stream=policy.stream), policy)


class SeededKeys:
    """Where a simulated run's streams get their keys: from a seed and the stream's name.

    Args:
        seed: of the simulation.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def new_key(self, policy: StreamPolicy) -> bytes:
        """The 256-bit key of a simulated stream."""
        return seeded_key(self._seed, stream=policy.stream)

    def noise(
        self, key: bytes, policy: StreamPolicy, *, next_index: int, size: int
    ) -> SeededStream:
        """The noise of a simulated stream as it stands before step `next_index`."""
        return SeededStream.resumed(key, policy, next_index, size)
