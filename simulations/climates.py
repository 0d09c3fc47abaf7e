"""Outdoor temperatures: five climates with seasons, day and night, and weather."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .counter_random import Channel, KeyedRandom

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_HOURS = (0, 6, 12, 18)
_WARMEST_HOUR = 15.0
_WEATHER_MEMORY = 0.7
# Device numbers are far below: the weather of a climate has an address of its own.
_WEATHER_ADDRESS = 2**62


@dataclass(frozen=True, slots=True)
class Climate:
    """One climate, after rounded monthly normals 1991-2020 (WMO) of the place it is named for.

    Attributes:
        name: the segment that profiles carry.
        region: coarse region of its devices.
        mean_c: annual mean, degrees Celsius.
        seasonal_c: half the range of the monthly means.
        daily_c: half the range of a day.
        weather_sd_c: day-to-day spread about the season.
        indoor_c: temperature indoors.
        warmest_day: day of the year, 0 = 1 January.
        utc_offset_h: of local time, in whole quarters of a day, as the samples are.
    """

    name: str
    region: str
    mean_c: float
    seasonal_c: float
    daily_c: float
    weather_sd_c: float
    indoor_c: float
    warmest_day: int
    utc_offset_h: int


CLIMATES = (
    Climate("temperate", "western-europe", 11.5, 7.0, 4.0, 3.0, 20.0, 200, 0),  # London
    Climate("continental", "north-america", 10.5, 13.5, 5.0, 4.5, 21.0, 201, -6),  # Chicago
    Climate("cold", "northern-europe", 3.5, 13.0, 4.0, 4.5, 21.0, 199, 0),  # Oulu
    Climate("hot-arid", "middle-east", 26.5, 10.5, 7.0, 2.0, 25.0, 205, 6),  # Riyadh
    Climate("tropical", "south-east-asia", 27.8, 0.9, 3.5, 0.8, 26.0, 140, 6),  # Singapore
)


@lru_cache(maxsize=8)
def outdoor_temperature(
    *, num_days: int, seed: int, first_day_of_year: int, warming_c: float
) -> NDArray[np.float64]:
    """Return the outdoor temperature of every climate.

    Weather is a first-order autoregression from day to day, the same for all devices of a climate.

    Args:
        num_days: days from the start.
        seed: the fleet's.
        first_day_of_year: day of the year of the first day, 0 = 1 January.
        warming_c: added everywhere.

    Returns:
        float64, shape (num_days, 4 samples, n_climates), degrees Celsius, at 0, 6, 12 and 18 h UTC;
        shared by all who ask for it, and read-only.
    """
    random = KeyedRandom(
        seed=seed, device_indices=_WEATHER_ADDRESS + np.arange(len(CLIMATES), dtype=np.int64)
    )
    days = np.arange(num_days, dtype=np.int64)[:, None]
    shocks = random.normal(Channel.WEATHER, days)
    weather = np.empty_like(shocks)
    state = shocks[0]
    for day in range(num_days):
        if day:
            state = _WEATHER_MEMORY * state + np.sqrt(1 - _WEATHER_MEMORY**2) * shocks[day]
        weather[day] = state
    season = np.cos(2 * np.pi * (days + first_day_of_year - _of_all("warmest_day")) / 365.25)
    daily_mean = (
        _of_all("mean_c")
        + warming_c
        + _of_all("seasonal_c") * season
        + _of_all("weather_sd_c") * weather
    )
    temperature: NDArray[np.float64] = daily_mean[:, None, :] + day_and_night()
    temperature.flags.writeable = False
    return temperature


def day_and_night() -> NDArray[np.float64]:
    """Return the daily swing at the four samples, shape (4, n_climates), degrees Celsius."""
    local_hour = np.array(SAMPLE_HOURS)[:, None] + _of_all("utc_offset_h")
    swing: NDArray[np.float64] = np.cos(2 * np.pi * (local_hour - _WARMEST_HOUR) / 24.0)
    return _of_all("daily_c") * swing


def indoor_temperature(*, warming_c: float) -> NDArray[np.float64]:
    """Return the indoor temperature of every climate, degrees Celsius."""
    return _of_all("indoor_c") + warming_c


def yearly_temperature(*, warming_c: float) -> NDArray[np.float64]:
    """Return outdoor temperatures of the four quarters of a year without weather.

    Returns:
        float64, shape (4 quarters, 4 samples, n_climates), degrees Celsius.
    """
    season = np.cos(2 * np.pi * (np.arange(4)[:, None] + 0.5) / 4.0)
    daily_mean = _of_all("mean_c") + warming_c + _of_all("seasonal_c") * season
    temperature: NDArray[np.float64] = daily_mean[:, None, :] + day_and_night()
    return temperature


def _of_all(name: str) -> NDArray[np.float64]:
    return np.array([float(getattr(climate, name)) for climate in CLIMATES])
