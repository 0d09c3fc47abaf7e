"""Knees of cells: what was put in is found again, and what the real cells say."""

import numpy as np
import pytest

from models.cycling_cells import read_cells
from simulations.knee_fit import fit_cell, knees_of, spread_of


def life(*, knee_soh, knee_rate, smooth_cycles=300, until=0.80, power=0.75):
    """Capacity of a cell of the model, one value a cycle."""
    health, past, cycle = [], 0.0, 0
    while not health or health[-1] > until:
        cycle += 1
        smooth = (1 - knee_soh) * (cycle / smooth_cycles) ** power
        depth = knee_soh - (1 - smooth - past)
        if cycle > smooth_cycles:
            past += 2e-4 * knee_rate * (1 + 25 * max(depth, 0.0))
        health.append(1 - smooth - past)
    return np.array(health)


@pytest.mark.parametrize(("knee_soh", "knee_rate"), [(0.95, 1.6), (0.86, 0.8)])
def test_knee_that_was_put_in_is_found(knee_soh, knee_rate):
    health = life(knee_soh=knee_soh, knee_rate=knee_rate)

    found = fit_cell(health)

    assert found.knee_soh == pytest.approx(knee_soh, abs=0.016)
    assert found.knee_rate == pytest.approx(knee_rate, rel=0.35)
    assert found.error < 0.005
    assert found.error < found.error_without


def test_cell_without_a_knee_gets_hardly_one():
    cycle = np.arange(1, 801)

    found = fit_cell(1 - 0.2 * (cycle / 800) ** 0.75)

    assert found.knee_rate < 0.1
    assert found.error < 0.005


def test_spread_separates_sharp_from_gradual():
    knees = [fit_cell(life(knee_soh=0.93, knee_rate=rate)) for rate in (0.2, 0.2, 2.0, 2.2)]

    spread = spread_of("made up", knees)

    assert spread.gradual_share == 0.5
    assert spread.sharp_rate == pytest.approx(2.1, rel=0.2)
    assert spread.gradual_rate == pytest.approx(0.2, rel=0.4)


@pytest.mark.cells
@pytest.mark.slow
def test_cells_of_severson_bend_early_and_sharply(cells_directory):
    knees = knees_of(read_cells([cells_directory / "severson_b2.parquet"]))["severson_b2"]

    spread = spread_of("severson_b2", knees)

    assert spread.cells == 42
    assert spread.soh_mean == pytest.approx(0.969, abs=0.005)
    assert spread.sharp_rate == pytest.approx(1.6, abs=0.3)
    assert spread.gradual_share < 0.2
    assert spread.error < 0.2 * spread.error_without
    # The onset of the knee, by Attia et al. 2022 of other cells of that design: 0.644 ± 0.047.
    assert np.mean([knee.share_of_life for knee in knees]) == pytest.approx(0.644, abs=0.06)
