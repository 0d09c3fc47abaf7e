from dataclasses import replace
from datetime import datetime

import pytest

from simulations import FleetRecipe


def test_knobs_survive_json():
    recipe = replace(FleetRecipe(), bad_lot_share=0.4, climate_mix=(0.0, 0.0, 0.0, 1.0, 0.0))

    assert FleetRecipe.of(recipe.to_json()) == recipe


def test_knobs_are_read_from_text():
    recipe = FleetRecipe.of(
        {
            "climate_mix": "hot-arid=0.7, tropical=0.3",
            "resistance_limit": "1.9,2.1",
            "cadence_h": "12",
            "gauge_noise": "0.02",
            "start_at": "2025-06-01T00:00:00+00:00",
        }
    )

    assert recipe.climate_mix == (0.0, 0.0, 0.0, 0.7, 0.3)
    assert recipe.resistance_limit == (1.9, 2.1)
    assert recipe.cadence_h == 12
    assert recipe.gauge_noise == 0.02
    assert recipe.start_at.month == 6


def test_mix_may_be_a_mapping():
    assert FleetRecipe.of({"device_model_mix": {"lock": 1}}).device_model_mix[2] == 1.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bad_lot_shares": 0.1}, "no knob 'bad_lot_shares'; did you mean bad_lot_share"),
        ({"bad_lot_share": 1.4}, "bad_lot_share must be between 0 and 1, got 1.4"),
        ({"gauge_noise": "loud"}, "gauge_noise cannot be 'loud'"),
        ({"gauge_noise": float("nan")}, "gauge_noise must be between"),
        ({"gauge_noise": -0.01}, "gauge_noise must be between"),
        ({"cadence_h": 5}, "cadence_h must be one of"),
        ({"cadence_h": 6.5}, "cadence_h must be a whole number"),
        ({"climate_mix": "moon=1"}, "'moon' is not one of temperate"),
        ({"climate_mix": (1.0,)}, "climate_mix must have 5 shares"),
        ({"climate_mix": (0.0,) * 5}, "not all 0"),
        ({"resistance_limit": (2.2, 2.0)}, "resistance_limit must be"),
        ({"resistance_limit": "a=2,b=2"}, "separated by commas"),
        ({"silent_shares": (0.1,)}, "silent_shares must have 5 values"),
        ({"silent_shares": (0.1, 0.1, 0.1, 0.1, 1.5)}, "silent_shares must be between"),
        ({"relearn_interval_days": 0.0}, "relearn_interval_days must be between"),
        ({"start_at": datetime(2024, 1, 1)}, "start_at must carry a time zone"),
    ],
)
def test_recipe_that_no_fleet_can_have_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        FleetRecipe.of(settings)
