"""Fleet datasets: round trip, foreign names, and every way in which one can be wrong."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import DatasetError
from models.fleet_dataset import open_fleet, read_column_map, write_fleet
from models.labels import OwnerAnswers
from models.telemetry import Outcomes
from tests.support.fleets import DAY, START_S, profiles, random_life, readings, times, together

TELEMETRY = together(random_life(1, days=20), random_life(2, days=20, device_id="d1"))
OUTCOMES = Outcomes(
    ("d0", "d1"),
    np.full(2, START_S + 20 * DAY),
    np.array([START_S + 5.0 * DAY, np.nan]),
    np.array(["swelling", None], dtype=object),
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "fleet"
    answers = OwnerAnswers(np.array([1]), np.array([START_S]), np.array([-1], np.int8))
    write_fleet(path, profiles=profiles(2), telemetry=TELEMETRY, outcomes=OUTCOMES, answers=answers)
    return path


def change(path, **columns):
    """Replace or drop (None) columns of a Parquet file."""
    table = pq.read_table(path)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, values if isinstance(values, pa.Array) else [values])
    pq.write_table(table, path)


def test_a_fleet_comes_back_as_it_went_in(folder):
    fleet = open_fleet(folder)
    telemetry, outcomes = fleet.telemetry(), fleet.outcomes()

    assert [fleet.profiles[i] for i in range(2)] == [profiles(2)[i] for i in range(2)]
    assert telemetry.device_ids == ("d0", "d1")
    assert telemetry.offsets.tolist() == TELEMETRY.offsets.tolist()
    assert telemetry.at_s.tolist() == TELEMETRY.at_s.tolist()
    assert np.array_equal(telemetry.values, TELEMETRY.values, equal_nan=True)
    assert fleet.has_outcomes()
    assert outcomes.failed_at_s == pytest.approx(OUTCOMES.failed_at_s, nan_ok=True)
    assert outcomes.observed_until_s.tolist() == OUTCOMES.observed_until_s.tolist()
    assert outcomes.primary_cause.tolist() == ["swelling", None]
    assert fleet.answers().cause.tolist() == [-1]


def test_a_fleet_can_be_written_in_parts_and_without_outcomes(tmp_path):
    parts = (TELEMETRY.devices(i, i + 1) for i in range(2))
    write_fleet(tmp_path / "fleet", profiles=profiles(2), telemetry=parts)
    fleet = open_fleet(tmp_path / "fleet")

    assert fleet.telemetry().at_s.tolist() == TELEMETRY.at_s.tolist()
    assert not fleet.has_outcomes()
    assert fleet.answers() is None
    with pytest.raises(DatasetError, match="no such file"):
        fleet.outcomes()


def test_telemetry_can_be_a_folder_of_parts_whose_devices_are_mixed(folder):
    table = pq.read_table(folder / "telemetry.parquet")
    (folder / "telemetry.parquet").unlink()
    (folder / "telemetry").mkdir()
    half = len(table) // 3
    pq.write_table(table.slice(0, half), folder / "telemetry" / "part-1.parquet")
    pq.write_table(table.slice(half), folder / "telemetry" / "part-2.parquet")
    found = open_fleet(folder).telemetry()

    assert found.offsets.tolist() == TELEMETRY.offsets.tolist()
    assert found.at_s.tolist() == TELEMETRY.at_s.tolist()


def test_telemetry_without_a_row_is_refused_as_empty(folder):
    path = folder / "telemetry.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)

    with pytest.raises(DatasetError, match="is empty: it holds no reading"):
        open_fleet(folder).telemetry()


def test_rows_keep_the_order_in_which_a_device_recorded_them(tmp_path):
    at_s = times(5)[::-1].copy()
    write_fleet(tmp_path / "f", profiles=profiles(), telemetry=readings(at_s, capacity=1.0))

    assert open_fleet(tmp_path / "f").telemetry().at_s.tolist() == at_s.tolist()


def test_no_reading_counts_before_its_time(folder):
    table = pq.read_table(folder / "telemetry.parquet")
    later = pa.array(np.full(len(table), START_S * 10**6 + 1), pa.timestamp("us", tz="UTC"))
    change(folder / "telemetry.parquet", at=later)

    assert set(open_fleet(folder).telemetry().at_s.tolist()) == {START_S + 1}


def test_absent_columns_take_defaults_or_stay_unmeasured(folder):
    for name in ("device_model", "chemistry", "region", "climate", "criticality"):
        change(folder / "devices.parquet", **{name: None})
    change(folder / "telemetry.parquet", internal_resistance_mohm=None)
    change(folder / "outcomes.parquet", primary_cause=None)
    fleet = open_fleet(folder)

    assert fleet.profiles.region.tolist() == ["unknown"] * 2
    assert fleet.profiles.criticality.tolist() == ["medium"] * 2
    assert np.isnan(fleet.telemetry().values[:, 7]).all()
    assert fleet.outcomes().primary_cause.tolist() == [None, None]


MAP = """
[devices]
"Serial No." = "device_id"
[telemetry]
"Serial No." = "device_id"
"fcc mAh" = "full_charge_capacity_mah"
"""


def test_foreign_column_names_are_mapped_by_a_toml_file(folder, tmp_path):
    (tmp_path / "map.toml").write_text(MAP)
    for name in ("devices", "telemetry"):
        table = pq.read_table(folder / f"{name}.parquet")
        foreign = {"device_id": "Serial No.", "full_charge_capacity_mah": "fcc mAh"}
        table = table.rename_columns([foreign.get(n, n) for n in table.column_names])
        pq.write_table(table, folder / f"{name}.parquet")
    fleet = open_fleet(folder, column_map=read_column_map(tmp_path / "map.toml"))

    assert np.array_equal(fleet.telemetry().values, TELEMETRY.values, equal_nan=True)
    with pytest.raises(DatasetError, match="unknown column 'Serial"):
        open_fleet(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[devices", "not a readable TOML file"),
        ("[gadgets]\na = 'device_id'", r"unknown table \[gadgets\]"),
        ("devices = 3", r"unknown table \[devices\]"),
        ("[devices]\nid = 'serial'", "maps to unknown column 'serial'"),
        ("[devices]\nid = ['device_id']", "maps to unknown column"),
        ("[devices]\nid = 3", "maps to unknown column 3"),
    ],
)
def test_column_maps_that_are_none_are_refused(tmp_path, text, message):
    (tmp_path / "map.toml").write_text(text)

    with pytest.raises(DatasetError, match=message):
        read_column_map(tmp_path / "map.toml")
    with pytest.raises(DatasetError, match="not a readable TOML file"):
        read_column_map(tmp_path / "missing.toml")


def texts(*values):
    return pa.array(values)


def numbers(*values):
    return pa.array(values, pa.float64())


WRONG_DEVICES = {
    "twice": ({"device_id": texts("d0", "d0")}, "device 'd0' is listed twice"),
    "null id": ({"device_id": texts("d0", None)}, "column device_id is null in row 1"),
    "negative": ({"design_capacity_mah": numbers(3000, -1)}, "'d1' has design_capacity_mah -1"),
    "zero": ({"end_of_life_capacity_mah": numbers(0, 2400)}, "end_of_life_capacity_mah 0"),
    "no number": ({"design_capacity_mah": numbers(np.nan, 3000)}, "design_capacity_mah nan"),
    "infinite": ({"design_capacity_mah": numbers(np.inf, 3000)}, "design_capacity_mah inf"),
    "above": ({"end_of_life_capacity_mah": numbers(4500, 2400)}, r"below 1\.5 x design"),
    "type": ({"design_capacity_mah": texts("3000", "3000")}, "is of type string"),
    "criticality": ({"criticality": texts("high", "vital")}, "unknown criticality 'vital'"),
    "missing": ({"manufactured_at": None}, "column manufactured_at is missing"),
    "unknown": ({"owner": texts("me", "you")}, "unknown column 'owner'"),
}


@pytest.mark.parametrize(("columns", "message"), WRONG_DEVICES.values(), ids=WRONG_DEVICES)
def test_devices_that_cannot_be_are_refused(folder, columns, message):
    change(folder / "devices.parquet", **columns)

    with pytest.raises(DatasetError, match=message):
        open_fleet(folder)


def test_a_fleet_without_devices_is_refused(folder):
    pq.write_table(
        pq.read_table(folder / "devices.parquet").slice(0, 0), folder / "devices.parquet"
    )

    with pytest.raises(DatasetError, match="holds no device"):
        open_fleet(folder)


def test_what_is_no_fleet_dataset_is_told_apart(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        open_fleet(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"devices\.parquet is missing"):
        open_fleet(tmp_path)


def test_readings_of_a_stranger_are_refused(folder):
    count = len(TELEMETRY)
    change(folder / "telemetry.parquet", device_id=texts("d9", *["d1"] * (count - 1)))

    with pytest.raises(DatasetError, match=r"device 'd9' is not in devices\.parquet"):
        open_fleet(folder).telemetry()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"at": None}, "column at is missing"),
        ({"usage_hours": "text"}, "column usage_hours is of type string"),
        ({"voltage": "text"}, "unknown column 'voltage'"),
    ],
)
def test_telemetry_of_another_form_is_refused(folder, columns, message):
    filled = {n: None if v is None else texts(*[v] * len(TELEMETRY)) for n, v in columns.items()}
    change(folder / "telemetry.parquet", **filled)

    with pytest.raises(DatasetError, match=message):
        open_fleet(folder).telemetry()


def test_outcomes_must_be_one_a_device_with_a_known_cause(folder):
    path = folder / "outcomes.parquet"
    whole = path.read_bytes()
    for columns, message in (
        ({"device_id": texts("d0", "d0")}, "not exactly one row a device"),
        ({"device_id": texts("d0", "d7")}, "device 'd7' is not in"),
        ({"primary_cause": texts("magic", None)}, "unknown primary_cause 'magic'"),
        ({"observed_until": pa.nulls(2)}, "observed_until is null"),
    ):
        path.write_bytes(whole)
        change(path, **columns)
        with pytest.raises(DatasetError, match=message):
            open_fleet(folder).outcomes()


def test_a_place_that_is_taken_is_left_alone(folder, tmp_path):
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(DatasetError, match="exists already"):
        write_fleet(folder, profiles=profiles(2), telemetry=TELEMETRY)

    assert sorted(path.name for path in folder.iterdir()) == before
    (tmp_path / "empty").mkdir()
    write_fleet(tmp_path / "empty", profiles=profiles(2), telemetry=TELEMETRY)
    assert len(open_fleet(tmp_path / "empty").profiles) == 2


def interrupted(error):
    yield TELEMETRY.devices(0, 1)
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no more"), MemoryError()])
def test_a_write_that_is_interrupted_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(type(error)):
        write_fleet(tmp_path / "fleet", profiles=profiles(2), telemetry=interrupted(error))

    assert list(tmp_path.iterdir()) == []


def test_outcomes_that_cannot_be_written_leave_nothing_behind(tmp_path):
    broken = replace(OUTCOMES, failed_at_s=np.zeros(5))
    with pytest.raises(ValueError):
        write_fleet(tmp_path / "fleet", profiles=profiles(2), telemetry=TELEMETRY, outcomes=broken)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("here")

    with pytest.raises(DatasetError, match="cannot be written"):
        write_fleet(tmp_path / "file" / "fleet", profiles=profiles(2), telemetry=TELEMETRY)


def test_the_current_folder_can_be_filled(tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_fleet(Path(), profiles=profiles(2), telemetry=TELEMETRY)

    assert len(open_fleet(tmp_path / "here").profiles) == 2
