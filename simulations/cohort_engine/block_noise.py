"""Coins and noise of the devices of a block, each from its own source in the order of one device.

A device that trains alone draws a step's coins, then the step's noise, then the next step's coins.
A source is one stream of numbers, so a block has to ask each source in that order too, and then
gives each device what it would have had alone. Sources of `fast_noise` keep coins and noise apart,
and are drawn ahead, all steps at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from .fast_noise import FastDraws, FastSeededNoise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from privacy import NoiseSource


class BlockNoise(Protocol):
    """Randomness of a block; asked for coins, then for noise where there is some, step by step."""

    def coins(self) -> NDArray[np.float64]:
        """Return the next step's uniforms, shape (n_rows,), device after device."""

    def gaussians(self, size: int) -> NDArray[np.float32]:
        """Return the step's noise, N(0, 1), float32, shape (n_devices, size)."""


class NoiseOfSources:
    """Of any sources, asked one by one.

    Args:
        sources: of each device.
        counts: rows of each device.
    """

    def __init__(self, sources: Sequence[NoiseSource], counts: Sequence[int]) -> None:
        self._sources, self._counts = sources, counts

    def coins(self) -> NDArray[np.float64]:
        """Return the next step's uniforms, shape (n_rows,), device after device."""
        return np.concatenate(
            [
                source.uniform(count)
                for source, count in zip(self._sources, self._counts, strict=True)
            ]
        )

    def gaussians(self, size: int) -> NDArray[np.float32]:
        """Return the step's noise, N(0, 1), float32, shape (n_devices, size)."""
        drawn = np.empty((len(self._sources), size), np.float32)
        for number, source in enumerate(self._sources):
            drawn[number] = source.gaussian(size, std=1.0)
        return drawn


class NoiseDrawnAhead:
    """Of fast sources that have given nothing yet, all steps at once.

    Args:
        sources: of each device.
        counts: rows of each device.
        steps: T.
    """

    def __init__(
        self, sources: Sequence[FastSeededNoise], counts: Sequence[int], *, steps: int
    ) -> None:
        self._draws, self._sources, self._steps = FastDraws(), sources, steps
        by_device = [
            self._draws.coins(source, steps * count).reshape(steps, count)
            for source, count in zip(sources, counts, strict=True)
        ]
        self._coins = iter(np.concatenate(by_device, axis=1))
        self._noise: list[NDArray[np.float32]] = []

    def coins(self) -> NDArray[np.float64]:
        """Return the next step's uniforms, shape (n_rows,), device after device."""
        return next(self._coins)

    def gaussians(self, size: int) -> NDArray[np.float32]:
        """Return the step's noise, N(0, 1), float32, shape (n_devices, size)."""
        if not self._noise:
            drawn = self._draws.gaussians(self._sources, calls=self._steps, size=size)
            self._noise = list(drawn[::-1])
        return self._noise.pop()


def block_noise(sources: Sequence[NoiseSource], counts: Sequence[int], *, steps: int) -> BlockNoise:
    """Choose how the sources of a block are asked."""
    fast = [source for source in sources if isinstance(source, FastSeededNoise) and source.is_fresh]
    if len(fast) == len(sources):
        return NoiseDrawnAhead(fast, counts, steps=steps)
    return NoiseOfSources(sources, counts)
