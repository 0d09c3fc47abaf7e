"""What cannot be used is refused in one line: file, reason, remedy; and nothing is written."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.fleet_dataset import write_fleet
from tests.support.command_line import fedcell
from tests.support.cycling_files import write_cells
from tests.support.fleets import (
    DAY,
    START_S,
    profiles,
    random_life,
    readings,
    times,
    together,
)
from tests.support.line_bundle import KEY_ID, trusted_keys, write_line_bundle
from tests.support.system_parts import REPOSITORY

USAGE, BAD_DATA, MISSING, REFUSED, OUTSIDE = 2, 3, 4, 5, 6


@pytest.fixture
def fleet(tmp_path):
    path = tmp_path / "fleet"
    lives = (readings(times(60), capacity=2900.0), random_life(3, days=50, device_id="d1"))
    write_fleet(path, profiles=profiles(2), telemetry=together(*lives))
    return path


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def predict(fleet, *more):
    return fedcell("predict", "--fleet", fleet, "--out", fleet.parent / "p.parquet", *more)


def replace_column(path, name, values):
    table = pq.read_table(path)
    if name in table.column_names:
        table = table.drop_columns([name])
    if values is not None:
        table = table.append_column(name, [pa.array([values] * len(table))])
    pq.write_table(table, path)


# Cells


CELLS = {
    "unknown column": ({"voltage_v": np.ones(80)}, ("unknown column 'voltage_v'", "known:")),
    "wrong type": ({"capacity_ah": np.full(80, "1.1", object)}, ("capacity_ah", "string")),
    "negative capacity": (
        {"capacity_ah": np.where(np.arange(80) == 9, -1, 1.0)},
        ("capacity_ah in row 9 is -1",),
    ),
    "negative nominal": ({"nominal_ah": np.full(80, -1.1)}, ("nominal_ah", "-1.1")),
    "impossible day": ({"day": np.full(80, 1e12)}, ("column day",)),
}


@pytest.mark.parametrize(("columns", "parts"), CELLS.values(), ids=CELLS)
def test_cells_that_cannot_be(tmp_path, columns, parts):
    path = write_cells(tmp_path / "c.parquet", **columns)
    found = fedcell("import-cells", path, "--out", tmp_path / "fleet")

    assert found.is_refused(BAD_DATA, str(path), *parts)
    assert everything_below(tmp_path) == ["c.parquet"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"cell_id,day\nx,1\n"], ids=["0", "4", "csv"])
def test_files_that_are_no_parquet(tmp_path, content):
    (tmp_path / "c.parquet").write_bytes(content)
    found = fedcell("import-cells", tmp_path / "c.parquet", "--out", tmp_path / "fleet")

    assert found.is_refused(BAD_DATA, str(tmp_path / "c.parquet"))
    assert everything_below(tmp_path) == ["c.parquet"]


def test_a_missing_column_an_empty_table_and_a_missing_file(tmp_path):
    lacking = write_cells(tmp_path / "a.parquet", without=("capacity_ah",))
    empty = write_cells(tmp_path / "b.parquet", cycles=0)
    for path, part in (
        (lacking, "column capacity_ah is missing"),
        (empty, "holds no row"),
        (tmp_path / "none.parquet", "no such file"),
        (tmp_path, "parquet"),
    ):
        found = fedcell("import-cells", path, "--out", tmp_path / "fleet")
        assert found.is_refused(BAD_DATA, str(path), part)
    assert everything_below(tmp_path) == ["a.parquet", "b.parquet"]


def test_the_same_cell_in_two_files(tmp_path):
    first, second = (write_cells(tmp_path / f"{name}.parquet") for name in "ab")
    found = fedcell("import-cells", first, second, "--out", tmp_path / "fleet")

    assert found.is_refused(BAD_DATA, "'x-1'", str(first), str(second))
    assert everything_below(tmp_path) == ["a.parquet", "b.parquet"]


def test_a_folder_that_is_taken(tmp_path):
    path = write_cells(tmp_path / "c.parquet")
    fedcell("import-cells", path, "--out", tmp_path / "fleet")
    before = everything_below(tmp_path)
    found = fedcell("import-cells", path, "--out", tmp_path / "fleet")

    assert found.is_refused(BAD_DATA, "exists already")
    assert everything_below(tmp_path) == before


def test_an_interrupted_import_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    path = write_cells(tmp_path / "c.parquet")
    monkeypatch.setattr("models.fleet_dataset._telemetry_columns", stop)
    found = fedcell("import-cells", path, "--out", tmp_path / "fleet")

    assert found.code == 130
    assert everything_below(tmp_path) == ["c.parquet"]


# Fleets


FLEETS = {
    "unknown device column": ("devices", "owner", "me", "unknown column 'owner'"),
    "missing device column": ("devices", "design_capacity_mah", None, "design_capacity_mah"),
    "device type": ("devices", "design_capacity_mah", "3000", "of type string"),
    "negative capacity": ("devices", "design_capacity_mah", -3000.0, "-3000"),
    "twice": ("devices", "device_id", "d0", "device 'd0' is listed twice"),
    "unknown reading column": ("telemetry", "voltage", 3.7, "unknown column 'voltage'"),
    "missing reading column": ("telemetry", "at", None, "column at is missing"),
    "reading type": ("telemetry", "usage_hours", "two", "usage_hours is of type string"),
    "time as number": ("telemetry", "at", 17, "column at is of type int64"),
    "stranger": ("telemetry", "device_id", "d9", "device 'd9' is not in devices.parquet"),
}


@pytest.mark.parametrize(("file", "column", "value", "part"), FLEETS.values(), ids=FLEETS)
def test_fleets_that_cannot_be(fleet, file, column, value, part):
    path = fleet / f"{file}.parquet"
    replace_column(path, column, value)
    before = everything_below(fleet.parent)
    found = predict(fleet)

    assert found.is_refused(BAD_DATA, str(path), part)
    assert everything_below(fleet.parent) == before


@pytest.mark.parametrize("name", ["devices.parquet", "telemetry.parquet"])
def test_files_of_a_fleet_that_are_empty_or_cut_off(fleet, name):
    whole = (fleet / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        (fleet / name).write_bytes(content)
        assert predict(fleet).is_refused(BAD_DATA, str(fleet / name))
    assert not (fleet.parent / "p.parquet").exists()


def test_no_fleet_at_all(tmp_path):
    nowhere = fedcell("predict", "--fleet", tmp_path / "no", "--out", tmp_path / "p.parquet")
    empty = fedcell("predict", "--fleet", tmp_path, "--out", tmp_path / "p.parquet")

    assert nowhere.is_refused(BAD_DATA, str(tmp_path / "no"), "no such folder")
    assert empty.is_refused(BAD_DATA, "devices.parquet is missing", "simulate fleet")
    assert everything_below(tmp_path) == []


def test_negative_readings_and_times_in_the_future_are_refused_by_reason_and_counted(tmp_path):
    capacity = np.full(240, 2900.0)
    capacity[100:130] = -5.0
    at_s = times(60)
    at_s[-4:] = START_S + 40_000 * DAY + np.arange(4) * 6 * 3600
    write_fleet(
        tmp_path / "fleet", profiles=profiles(), telemetry=readings(at_s, capacity=capacity)
    )
    found = predict(tmp_path / "fleet")

    assert found.code == 0
    assert "refused 30: out_of_range:full_charge_capacity_mah" in found.out
    assert "refused 4: in_the_future" in found.out
    assert pq.read_metadata(tmp_path / "p.parquet").num_rows == 59


def test_a_fleet_without_a_single_reading_is_refused_as_empty(tmp_path):
    write_fleet(tmp_path / "fleet", profiles=profiles(), telemetry=readings(np.zeros(0)))
    found = predict(tmp_path / "fleet")

    assert found.is_refused(BAD_DATA, "telemetry.parquet", "is empty: it holds no reading")
    assert found.err.startswith("fedcell: ")
    assert not (tmp_path / "p.parquet").exists()


def test_column_maps_that_do_not_fit(fleet, tmp_path):
    for text, part in (
        ("[telemetry", "not a readable TOML file"),
        ("[telemetry]\ncap = 'capacity'", "unknown column 'capacity'"),
        ("[telemetry]\nusage_hours = 'internal_resistance_mohm'", "map to the same name"),
    ):
        (tmp_path / "map.toml").write_text(text)
        assert predict(fleet, "--columns", tmp_path / "map.toml").is_refused(BAD_DATA, part)
    assert not (tmp_path / "p.parquet").exists()


def test_a_place_that_cannot_be_written(fleet):
    (fleet.parent / "file").write_text("here")
    os.mkfifo(fleet.parent / "pipe")
    for out in (fleet, fleet.parent / "file" / "p.parquet", fleet.parent / "pipe"):
        found = fedcell("predict", "--fleet", fleet, "--out", out)
        assert found.is_refused(OUTSIDE, str(out), "cannot be written", "choose another place")
    assert (fleet.parent / "pipe").is_fifo()
    assert [name for name in everything_below(fleet.parent) if "part" in name] == []


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--every", "soon"), "'--every': 'soon' is no number of days from 1d to 3650d; write 1d,"),
        (("--every", "0d"), "0d"),
        (("--every", "3651d"), "3650d"),
        (("--every", "9" * 20 + "d"), "3650d"),
        (("--every", "9" * 5000), "3650d"),
        (("--reasons", "some"), "due, all or none"),
    ],
)
def test_options_that_mean_nothing(fleet, more, part):
    assert predict(fleet, *more).is_refused(USAGE, part, "--help")


# Tables of predictions


def test_tables_that_are_no_predictions_of_this_fleet(fleet, tmp_path):
    def evaluate(path):
        return fedcell("evaluate", "--predictions", path, "--fleet", fleet)

    predict(fleet)
    good = tmp_path / "p.parquet"
    assert evaluate(good).is_refused(BAD_DATA, "outcomes.parquet")
    assert evaluate(tmp_path / "none.parquet").is_refused(BAD_DATA, "no such file")
    assert evaluate(fleet / "devices.parquet").is_refused(BAD_DATA, "column as_of is missing")
    for name, value, part in (
        ("flagged", "yes", "column flagged is of type string"),
        ("device_id", "d7", "device 'd7' has no outcome"),
        ("status", "stale", "no row with status ok"),
    ):
        shutil.copy(good, tmp_path / "q.parquet")
        replace_column(tmp_path / "q.parquet", name, value)
        with_outcomes(fleet)
        assert evaluate(tmp_path / "q.parquet").is_refused(BAD_DATA, part)


def with_outcomes(fleet):
    until = pa.array([START_S * 10**6] * 2, pa.timestamp("us", tz="UTC"))
    pq.write_table(
        pa.table({"device_id": ["d0", "d1"], "observed_until": until, "failed_at": pa.nulls(2)}),
        fleet / "outcomes.parquet",
    )


def test_a_table_with_moments_that_the_fleet_does_not_have(fleet, tmp_path):
    predict(fleet)
    with_outcomes(fleet)
    table = pq.read_table(tmp_path / "p.parquet")
    shifted = pa.array(
        [moment.replace(year=2031) for moment in table["as_of"].to_pylist()],
        pa.timestamp("us", tz="UTC"),
    )
    position = table.column_names.index("as_of")
    pq.write_table(table.set_column(position, "as_of", shifted), tmp_path / "q.parquet")
    found = fedcell("evaluate", "--predictions", tmp_path / "q.parquet", "--fleet", fleet)

    assert found.is_refused(BAD_DATA, "moments that the fleet does not have")


# Bundles


def test_bundles_that_are_truncated_altered_not_trusted_or_not_there(fleet, tmp_path):
    path = write_line_bundle(tmp_path / "b.zip")
    keys = tmp_path / "keys.json"
    keys.write_text(f'{{"{KEY_ID}": "{trusted_keys()[KEY_ID].hex()}"}}')
    whole = path.read_bytes()

    assert predict(fleet, "--bundle", path, "--trusted-key", keys).code == 0
    (tmp_path / "p.parquet").unlink()
    assert predict(fleet, "--bundle", path).is_refused(REFUSED, str(path), "unknown key")
    altered = bytearray(whole)
    altered[200] ^= 1
    for content in (b"", whole[:500], whole[:-3], bytes(altered)):
        path.write_bytes(content)
        found = predict(fleet, "--bundle", path, "--trusted-key", keys)
        assert found.is_refused(REFUSED, str(path))
    for missing in ("--bundle", tmp_path / "none.zip"), ("--trusted-key", tmp_path / "none.json"):
        more = missing if missing[0] == "--bundle" else ("--bundle", path, *missing)
        assert predict(fleet, *more).is_refused(MISSING, "none.", "no such")
    assert not (tmp_path / "p.parquet").exists()


def test_an_unsigned_bundle_of_ones_own_needs_leave(fleet, tmp_path):
    write_line_bundle(tmp_path / "b.zip", signed=False)

    assert predict(fleet, "--bundle", tmp_path / "b.zip").is_refused(REFUSED, "no signature")
    assert predict(fleet, "--bundle", tmp_path / "b.zip", "--allow-unsigned").code == 0


def test_the_installed_command_ends_with_the_same_line_and_code(tmp_path):
    write_cells(tmp_path / "c.parquet", colour=np.full(80, "red", object))
    ran = subprocess.run(
        [sys.executable, "-c", "from server.cli import main; main()", "import-cells",
         str(tmp_path / "c.parquet"), "--out", str(tmp_path / "fleet")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip

    assert ran.returncode == BAD_DATA
    assert ran.stdout == ""
    (line,) = ran.stderr.strip().splitlines()
    assert line.startswith(f"fedcell: {tmp_path}/c.parquet: unknown column 'colour'; map or remove")
    assert line.endswith("ambient_c, discharge_c_rate, eol_flag)")
