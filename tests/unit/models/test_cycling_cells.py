"""Cycling data of laboratories become a fleet, or one clear line says why not."""

import numpy as np
import pytest

from models.cycling_cells import DAY_ZERO_S, import_cells, read_cells
from models.errors import DatasetError
from models.fleet_dataset import open_fleet
from tests.support.cycling_files import cell_columns, write_cells
from tests.support.fleets import DAY


def test_a_cell_becomes_a_device_with_one_reading_a_cycle(tmp_path):
    path = write_cells(tmp_path / "c.parquet", cells=("x-1",), cycles=50)
    cells = read_cells([path])
    profile = cells.profiles[0]

    assert cells.telemetry.device_ids == ("x-1",)
    assert (profile.design_capacity_mah, profile.end_of_life_capacity_mah) == (1100, 880)
    assert profile.manufactured_at.isoformat() == "2024-01-01T00:00:00+00:00"
    assert (profile.device_model, profile.chemistry) == ("set", "LFP")
    assert cells.telemetry.at_s.tolist() == [DAY_ZERO_S + day * DAY for day in range(1, 51)]
    assert cells.telemetry.values[9] == pytest.approx(
        [1100 * (1 - 0.004 * 10), 10, 45, 36, 31, np.nan, np.nan, 17], rel=1e-6, nan_ok=True
    )
    assert cells.conditions.tolist() == ["4C"]


def test_the_first_flagged_cycle_is_the_failure_and_cells_without_one_are_censored(tmp_path):
    path = write_cells(tmp_path / "c.parquet", cells=("a", "b"), cycles=60, fade=(0.004, 0.001))
    outcomes = read_cells([path]).outcomes

    assert ((outcomes.failed_at_s - DAY_ZERO_S) / DAY).tolist() == pytest.approx(
        [51, np.nan], nan_ok=True
    )
    assert ((outcomes.observed_until_s - DAY_ZERO_S) / DAY).tolist() == [60, 60]
    assert outcomes.primary_cause.tolist() == ["capacity_fade", None]


def test_without_flags_no_outcomes_are_written(tmp_path):
    path = write_cells(tmp_path / "c.parquet", without=("eol_flag",))
    import_cells([path], tmp_path / "fleet")

    assert sorted(found.name for found in (tmp_path / "fleet").iterdir()) == [
        "devices.parquet",
        "telemetry.parquet",
    ]
    assert not open_fleet(tmp_path / "fleet").has_outcomes()


def test_an_import_can_be_opened_as_a_fleet(tmp_path):
    path = write_cells(tmp_path / "c.parquet", cells=("a", "b"), cycles=40)
    cells = import_cells([path], tmp_path / "fleet")
    fleet = open_fleet(tmp_path / "fleet")

    assert np.array_equal(fleet.telemetry().values, cells.telemetry.values, equal_nan=True)
    assert fleet.telemetry().at_s.tolist() == cells.telemetry.at_s.tolist()
    assert fleet.outcomes().failed_at_s == pytest.approx(cells.outcomes.failed_at_s, nan_ok=True)
    assert fleet.profiles.region.tolist() == ["laboratory"] * 2


def test_columns_that_only_some_files_have_are_missing_in_the_others(tmp_path):
    rich = write_cells(tmp_path / "a.parquet", cells=("a",))
    poor = write_cells(
        tmp_path / "b.parquet",
        cells=("b",),
        without=("charge_time_min", "chemistry", "condition", "internal_resistance_ohm"),
    )
    cells = read_cells([rich, poor])

    assert cells.profiles.chemistry.tolist() == ["LFP", "unknown"]
    assert cells.conditions.tolist() == ["4C", "unknown"]
    device = cells.telemetry.device_of_row()
    assert np.isfinite(cells.telemetry.values[device == 0, 2]).all()
    assert np.isnan(cells.telemetry.values[device == 1, 2]).all()


def test_what_a_cell_is_called_is_unknown_where_no_file_says_it(tmp_path):
    path = write_cells(tmp_path / "c.parquet", without=("dataset", "chemistry", "condition"))
    cells = read_cells([path])

    assert cells.profiles.device_model.tolist() == ["unknown", "unknown"]
    assert cells.conditions.tolist() == ["unknown", "unknown"]


def test_rows_may_come_in_any_order_and_cells_may_be_mixed(tmp_path):
    shuffle = np.random.default_rng(0).permutation(80)
    tidy = read_cells([write_cells(tmp_path / "a.parquet", cells=("a", "b"))])
    mixed = read_cells([write_cells(tmp_path / "b.parquet", cells=("a", "b"), order=shuffle)])
    own = {name: index for index, name in enumerate(mixed.telemetry.device_ids)}

    for index, name in enumerate(tidy.telemetry.device_ids):
        there = tidy.telemetry.devices(index, index + 1)
        here = mixed.telemetry.devices(own[name], own[name] + 1)
        assert np.array_equal(there.values, here.values, equal_nan=True)
        assert there.at_s.tolist() == here.at_s.tolist()


def test_unmeasured_capacities_stay_missing(tmp_path):
    capacity = cell_columns()["capacity_ah"].copy()
    capacity[3] = np.nan
    cells = read_cells([write_cells(tmp_path / "c.parquet", capacity_ah=capacity)])

    assert np.flatnonzero(np.isnan(cells.telemetry.values[:, 0])).tolist() == [3]


def test_the_same_cell_in_two_files_is_refused(tmp_path):
    first = write_cells(tmp_path / "a.parquet", cells=("a", "b"))
    second = write_cells(tmp_path / "b.parquet", cells=("b", "c"))

    with pytest.raises(DatasetError, match=r"b\.parquet: cell 'b' is in .*a\.parquet too"):
        read_cells([first, second])
    with pytest.raises(DatasetError, match="cell 'a' is in"):
        read_cells([first, first])


def columns_with(name, row, value):
    column = cell_columns()[name].copy()
    column[row] = value
    return {name: column}


WRONG = {
    "negative capacity": (columns_with("capacity_ah", 5, -1.0), "capacity_ah in row 5 is -1"),
    "no nominal": (columns_with("nominal_ah", 0, 0.0), "nominal_ah of cell 'x-1' is 0"),
    "nominal missing": (columns_with("nominal_ah", 2, np.nan), "nominal_ah"),
    "infinite nominal": (columns_with("nominal_ah", 0, np.inf), "nominal_ah of cell 'x-1' is inf"),
    "no end of life": (columns_with("eol_capacity_ah", 7, -0.5), "eol_capacity_ah of cell"),
    "end of life above": (columns_with("eol_capacity_ah", 0, 1.7), r"below 1\.5 x nominal_ah"),
    "no day": (columns_with("day", 4, np.nan), "day"),
    "a day twice": (columns_with("day", 4, 4.0), "two rows for one day"),
    "a day beyond": (columns_with("day", 4, 1e9), "no usable number"),
    "text": ({"capacity_ah": np.full(80, "1.1", dtype=object)}, "capacity_ah is of type string"),
    "unknown": ({"voltage_v": np.ones(80)}, "unknown column 'voltage_v'"),
}


@pytest.mark.parametrize(("columns", "message"), WRONG.values(), ids=WRONG)
def test_cells_that_cannot_be_are_refused_and_nothing_is_written(tmp_path, columns, message):
    path = write_cells(tmp_path / "c.parquet", **columns)

    with pytest.raises(DatasetError, match=message):
        import_cells([path], tmp_path / "fleet")
    assert [found.name for found in tmp_path.iterdir()] == ["c.parquet"]


@pytest.mark.parametrize("name", ["cell_id", "day", "capacity_ah", "nominal_ah", "eol_capacity_ah"])
def test_columns_that_must_be_there(tmp_path, name):
    path = write_cells(tmp_path / "c.parquet", without=(name,))

    with pytest.raises(DatasetError, match=f"column {name} is missing"):
        read_cells([path])


def test_a_file_without_cycles_is_refused(tmp_path):
    path = write_cells(tmp_path / "c.parquet", cycles=0)

    with pytest.raises(DatasetError, match="holds no row"):
        read_cells([path])


@pytest.mark.slow
@pytest.mark.cells
def test_all_real_cells_import_and_agree_with_their_readme(cells_directory):
    cells = read_cells(sorted(cells_directory.glob("*.parquet")))
    reached = np.isfinite(cells.outcomes.failed_at_s)

    assert (len(cells.profiles), len(cells.telemetry)) == (249, 20_780 + 144_366 + 57_465)
    by_set = {
        name: (int((cells.datasets == name).sum()), int(reached[cells.datasets == name].sum()))
        for name in set(cells.datasets.tolist())
    }
    assert sorted(by_set.values()) == [(42, 42), (77, 69), (130, 65)]
