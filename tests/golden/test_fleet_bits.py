"""A fleet of yesterday, by recipe and seed, is the same fleet today."""

import json

import numpy as np
import pytest

from tests.golden.make_fleet_bits import (
    RECIPES,
    TARGET,
    digests_of,
    fleet_of,
    numerics,
    values_of,
)

GOLDEN = json.loads(TARGET.read_text())


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
