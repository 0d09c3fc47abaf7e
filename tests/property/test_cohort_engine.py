"""However a cohort is cut and ordered, its sum has the same bits."""

from functools import lru_cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.closed_form_batches import ScaledRows
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from privacy import UpdateGrid
from simulations.cohort_engine import CohortTraining, FastSeededNoise
from simulations.seeded_noise import SeededNoise
from tests.support.made_up_rows import made_up_rows

WEIGHTS = new_flat_weights(seed=1)
GRID = UpdateGrid(clipping_norm=0.4)
PRIVATE = LocalRecipe(least_rows=2, steps=2, sampling_rate=0.2)
PLAIN = LocalRecipe(least_rows=2, steps=2, sampling_rate=0.2, record_noise_multiplier=0.0)


@lru_cache(maxsize=256)
def rows_of(num_rows, seed):
    return ScaledRows.of(made_up_rows(num_rows, seed=seed))


@lru_cache(maxsize=1024)
def alone(device, recipe, kind):
    pair = [(rows_of(*device), kind(1, *device))]
    return CohortTraining(recipe).contributions(pair, weights=WEIGHTS, grid=GRID)


DEVICES = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=40, unique=True
)


@settings(max_examples=40, deadline=None)
@given(
    devices=DEVICES,
    size=st.integers(1, 40),
    recipe=st.sampled_from([PRIVATE, PLAIN]),
    kind=st.sampled_from([SeededNoise, FastSeededNoise]),
)
def test_sum_of_a_cohort_is_that_of_its_devices_in_any_order_and_block(devices, size, recipe, kind):
    pairs = [(rows_of(*device), kind(1, *device)) for device in devices]
    engine = CohortTraining(recipe, devices_a_block=size)
    total = engine.contributions(pairs, weights=WEIGHTS, grid=GRID)
    assert np.array_equal(total, sum(alone(device, recipe, kind) for device in devices))
