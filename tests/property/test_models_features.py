"""Features of untidy lives against loops written from the words of the specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.feature_spec import FEATURE_NAMES
from models.featurize import featurize
from tests.support.examples import examples
from tests.support.fleets import profiles, random_life
from tests.support.naive_features import naive_features


@settings(max_examples=examples(30))
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_features_are_what_the_specification_says(seed, moment):
    life, owner = random_life(seed), profiles()
    table = featurize(life, owner)
    row = round(moment * (len(table.status) - 1))

    expected, pack = naive_features(life, owner[0], int(table.as_of_s[row]))

    assert table.pack[row] == pack
    found = dict(zip(FEATURE_NAMES, table.features[row].astype(float), strict=True))
    for name in FEATURE_NAMES:
        close = pytest.approx(expected[name], rel=2e-4, abs=2e-4, nan_ok=True)
        assert found[name] == close, name


@settings(max_examples=examples(8))
@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=4, unique=True))
def test_the_order_of_devices_changes_nothing(seeds):
    from tests.support.fleets import together

    lives = [random_life(seed, days=60, device_id=str(seed)) for seed in seeds]
    there = featurize(together(*lives), profiles(len(seeds)))
    back = featurize(together(*lives[::-1]), profiles(len(seeds)))

    for index in range(len(seeds)):
        mine = there.features[there.device == index]
        again = back.features[back.device == len(seeds) - 1 - index]
        assert np.allclose(mine, again, rtol=1e-6, atol=1e-6, equal_nan=True)
