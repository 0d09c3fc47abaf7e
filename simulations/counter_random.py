"""Random numbers that depend on nothing but seed, device, channel and counter.

A sequential generator ties a device's numbers to the devices drawn before it. Here each number is
a hash of its own address, so any device can be simulated again alone, in any block and in any
order, bit for bit.

The hash is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", OOPSLA, figure 17, with the finaliser of Stafford's variant 13): each pair of device
and channel has its own stream, and the counter is the position in it. It is for simulation only
and never a source of privacy noise.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counter = int | NDArray[np.int64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_CHANNEL_STEP = np.uint64(0xD1342543DE82EF95)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


class Channel(IntEnum):
    """What a number is drawn for; giving a channel another number changes every fleet."""

    DEVICE_MODEL = 1
    BAD_LOT = 2
    USAGE_LEVEL = 3
    USAGE_WEEKEND = 4
    CHARGE_CEILING = 5
    CHARGE_SLOT = 6
    INDOOR = 7
    SELF_HEATING = 8
    CLIMATE = 9
    ENTRY_AGE = 10
    CRITICALITY = 11
    CELL = 12
    FAILURE_TRAITS = 13
    OWNER = 14
    DAILY_USAGE = 15
    WEATHER = 16
    FAILURE_MOMENT = 17
    ANSWER = 18
    GAUGE_BIAS = 20
    GAUGE_RELEARN = 21
    CAPACITY_NOISE = 22
    TEMPERATURE_OFFSET = 23
    TEMPERATURE_NOISE = 24
    PEAK_NOISE = 25
    CHARGE_NOISE = 26
    CHARGE_SKIPPED = 27
    SHUTDOWNS = 28
    RESISTANCE_NOISE = 29
    USAGE_NOISE = 30
    READING_LOST = 31
    VALUE_MISSING = 32
    OUTAGE = 33
    OUTAGE_LENGTH = 34
    CLOCK_FAULT = 35
    CLOCK_OFFSET = 36
    CLOCK_REPAIR = 37
    DUPLICATE = 38
    REBOOT = 39
    JITTER = 40
    USER_CHANGE = 41
    USER_LEVEL = 42
    USER_HABIT = 43
    NEW_MODEL = 44
    PLUG = 45
    LINK = 46
    IN_USE = 47


class KeyedRandom:
    """Random numbers of a block of devices, addressed by channel and counter."""

    def __init__(self, *, seed: int, device_indices: NDArray[np.int64]) -> None:
        """Derive one key a device.

        Args:
            seed: the fleet's seed, 0 to 2**64 - 1.
            device_indices: int64, shape (n_devices,), numbers of the devices in the fleet.

        Raises:
            ValueError: when the seed does not fit into 64 bits.
        """
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be between 0 and 2**64 - 1, got {seed}")
        root = _mix(np.array([seed], np.uint64) + _GAMMA)
        self._keys = _mix(root + (device_indices.astype(np.uint64) + np.uint64(1)) * _GAMMA)
        self._streams: dict[Channel, NDArray[np.uint64]] = {}

    @property
    def num_devices(self) -> int:
        """Devices of the block."""
        return len(self._keys)

    def of_devices(self, positions: NDArray[np.intp]) -> KeyedRandom:
        """Return the numbers of some devices of this block."""
        part = object.__new__(KeyedRandom)
        part._keys = self._keys[positions]
        part._streams = {}
        return part

    def bits(self, channel: Channel, counter: Counter = 0) -> NDArray[np.uint64]:
        """Return 64 random bits for each address.

        Args:
            channel: what they are for.
            counter: position in the stream; a number, or an array that broadcasts against
                (n_devices,), such as shape (n_times, 1).

        Returns:
            uint64, the broadcast shape of `counter` and (n_devices,).
        """
        stream = self._streams.get(channel)
        if stream is None:
            stream = _mix(self._keys + np.array([channel], np.uint64) * _CHANNEL_STEP)
            self._streams[channel] = stream
        position = np.atleast_1d(np.asarray(counter, np.int64)).astype(np.uint64)
        return _mix(stream + (position + np.uint64(1)) * _GAMMA)

    def uniform(self, channel: Channel, counter: Counter = 0) -> NDArray[np.float64]:
        """Return numbers from the open interval (0, 1)."""
        return ((self.bits(channel, counter) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, channel: Channel, counter: Counter = 0) -> NDArray[np.float64]:
        """Return standard normal numbers, by Box and Muller from the two halves of one hash.

        With 32 bits a half the largest magnitude is 6.8.
        """
        bits = self.bits(channel, counter)
        radius = (bits >> np.uint64(32)).astype(np.float64)
        radius += 0.5
        radius *= 2.0**-32
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64)
        angle *= 2.0 * np.pi * 2.0**-32
        np.cos(angle, out=angle)
        radius *= angle
        return radius

    def exponential(self, channel: Channel, counter: Counter = 0) -> NDArray[np.float64]:
        """Return exponentially distributed numbers of mean 1."""
        return -np.log(self.uniform(channel, counter))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits; works in place on an array that the caller has just made."""
    z ^= z >> _SHIFTS[0]
    z *= _MULTIPLIER_1
    z ^= z >> _SHIFTS[1]
    z *= _MULTIPLIER_2
    z ^= z >> _SHIFTS[2]
    return z
