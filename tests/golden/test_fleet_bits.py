"""A fleet of yesterday, by recipe and seed, is the same fleet today."""

import hashlib
import json

import numpy as np
import pytest

from simulations import FleetRecipe
from tests.golden.make_fleet_bits import (
    RECIPES,
    TARGET,
    digests_of,
    fleet_of,
    numerics,
    values_of,
)

# Of the default recipe of version 0.1.0.
RECIPE_DIGEST = "33ecbc80de6c6c4730bebee74c6fd58401dc3772a4952f5900d07b60ce57360d"
GOLDEN = json.loads(TARGET.read_text())


def test_recipe_of_yesterday_is_written_as_it_was():
    """The default model's card names its fleets by digests of these words."""
    assert hashlib.sha256(repr(FleetRecipe()).encode()).hexdigest() == RECIPE_DIGEST
    assert "new_model_share=0.1" in repr(FleetRecipe(new_model="meter", new_model_share=0.1))


@pytest.mark.parametrize("name", RECIPES)
def test_fleet_of_yesterday_keeps_its_bits(name):
    golden = GOLDEN["fleets"][name]
    fleet = fleet_of(RECIPES[name])

    seen = values_of(fleet)

    assert abs(seen["readings"] - golden["values"]["readings"]) <= 4
    assert seen["packs"] == golden["values"]["packs"]
    close = np.isclose(seen["capacity_mah"], golden["values"]["capacity_mah"], atol=0.02)
    assert close.mean() > 0.99
    if numerics() == GOLDEN["numerics"]:
        assert digests_of(fleet) == golden["digests"]
