import math

import pytest

from models.prediction import ACTION_EDGES_DAYS
from models.wire.bands import (
    DAYS_EDGES,
    HEALTH_EDGES,
    PROBABILITY_EDGES,
    DaysBand,
    HealthBand,
    ProbabilityBand,
    days_band,
    health_band,
    least_days,
    probability_band,
)


@pytest.mark.parametrize(
    ("days", "band"),
    [
        (0, "under_7"),
        (6.999, "under_7"),
        (7, "7_to_30"),
        (29.999, "7_to_30"),
        (30, "30_to_90"),
        (90, "90_or_more"),
        (math.inf, "90_or_more"),
    ],
)
def test_days_are_told_in_the_bands_of_the_actions(days, band):
    assert days_band(days) == band
    assert DAYS_EDGES == ACTION_EDGES_DAYS


@pytest.mark.parametrize("band", DaysBand)
def test_a_band_begins_at_the_least_days_in_it(band):
    least = least_days(band)

    assert days_band(least) is band
    assert least == 0 or days_band(math.nextafter(least, 0)) is not band


@pytest.mark.parametrize(
    ("probability", "band"),
    [
        (0.0, "under_1_pct"),
        (0.01, "1_to_5_pct"),
        (0.05, "5_to_20_pct"),
        (0.2, "20_to_50_pct"),
        (0.5, "50_to_80_pct"),
        (0.8, "80_pct_or_more"),
        (1.0, "80_pct_or_more"),
    ],
)
def test_a_probability_belongs_to_the_band_it_opens(probability, band):
    assert probability_band(probability) == band


@pytest.mark.parametrize(
    ("health", "band"),
    [
        (0.0, "under_70_pct"),
        (0.7, "70_to_80_pct"),
        (0.8, "80_to_90_pct"),
        (0.9, "90_pct_or_more"),
        (1.04, "90_pct_or_more"),
    ],
)
def test_health_belongs_to_the_band_it_opens(health, band):
    assert health_band(health) == band


@pytest.mark.parametrize(
    ("edges", "bands"),
    [
        (PROBABILITY_EDGES, ProbabilityBand),
        (HEALTH_EDGES, HealthBand),
        (DAYS_EDGES, DaysBand),
    ],
)
def test_there_is_a_band_between_all_edges(edges, bands):
    assert len(bands) == len(edges) + 1


@pytest.mark.parametrize("value", [math.nan, -0.01, 1.01])
def test_what_is_no_probability_has_no_band(value):
    with pytest.raises(ValueError, match="ProbabilityBand must lie in 0 to 1"):
        probability_band(value)
