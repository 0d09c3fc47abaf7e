import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.fleet_dataset import write_fleet
from models.telemetry import MEASUREMENT_NAMES, DeviceProfiles, Telemetry
from server import cli

DAY_S = 86_400
START_S = 1_700_006_400


@pytest.fixture
def fleet(tmp_path):
    """Two devices of four daily readings; one capacity is negative, one time comes twice."""
    values = np.full((8, len(MEASUREMENT_NAMES)), np.nan, np.float32)
    values[:, 0] = 3000
    values[2, 0] = -5
    at_s = np.tile(START_S + DAY_S * np.arange(4), 2)
    at_s[7] = at_s[6]
    directory = tmp_path / "fleet"
    write_fleet(
        directory,
        profiles=DeviceProfiles(
            device_id=np.array(["a", "b"], dtype=object),
            device_model=np.array(["m", "m"], dtype=object),
            chemistry=np.array(["nmc", "nmc"], dtype=object),
            design_capacity_mah=np.array([3000.0, 3000.0]),
            end_of_life_capacity_mah=np.array([2400.0, 2400.0]),
            manufactured_at_s=np.array([START_S, START_S]),
            region=np.array(["north", "north"], dtype=object),
            climate=np.array(["mild", "mild"], dtype=object),
            criticality=np.array(["low", "low"], dtype=object),
        ),
        telemetry=Telemetry(("a", "b"), np.array([0, 4, 8]), at_s, values),
    )
    return directory


def run_doctor(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", *arguments])
    written = capsys.readouterr()
    return left.value.code, written.out, written.err


def test_refused_readings_are_counted_by_reason(fleet, capsys):
    code, out, _ = run_doctor(capsys, "--fleet", str(fleet), "--json")

    answer = json.loads(out)
    assert code == 0
    assert (answer["devices"], answer["num_readings"]) == (2, 8)
    assert answer["refused"] == {"out_of_range:full_charge_capacity_mah": 1, "duplicate": 1}
    assert answer["completeness"]["full_charge_capacity_mah"] == pytest.approx(6 / 7)
    assert answer["completeness"]["usage_hours"] == 0


def test_person_reads_shares_and_counts(fleet, capsys):
    code, out, _ = run_doctor(capsys, "--fleet", str(fleet))

    assert code == 0
    assert f"{fleet}: 2 devices, 8 readings" in out
    assert "  full_charge_capacity_mah       85.7%" in out
    assert "  duplicate                                        1" in out


def test_folder_that_is_no_fleet_is_bad_input_in_one_line(tmp_path, capsys):
    code, out, err = run_doctor(capsys, "--fleet", str(tmp_path))

    assert (code, out) == (3, "")
    assert err.startswith(f"fedcell: {tmp_path}: not a fleet dataset")
    assert err.count("\n") == 1


def test_telemetry_without_a_row_is_bad_input(fleet, capsys):
    path = fleet / "telemetry.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    code, out, err = run_doctor(capsys, "--fleet", str(fleet))

    assert (code, out) == (3, "")
    assert "is empty" in err


def test_column_map_that_is_missing_is_named(fleet, tmp_path, capsys):
    code, _, err = run_doctor(
        capsys, "--fleet", str(fleet), "--columns", str(tmp_path / "map.toml")
    )

    assert code == 3
    assert "map.toml" in err
