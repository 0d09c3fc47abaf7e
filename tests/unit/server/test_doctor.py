import json
import socket
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from server import cli, doctor
from server.doctor import Verdict

ROOT = Path("/app")
FOLDERS = {name: ROOT / name for name in doctor.OUR_PACKAGES}


def test_old_python_fails_with_the_version_to_install():
    check = doctor.check_python((3, 10, 4))

    assert check.verdict is Verdict.FAILED
    assert check.found == "Python 3.10.4"
    assert "3.11" in check.remedy


def test_newer_python_is_fine():
    assert doctor.check_python((3, 12, 0)).verdict is Verdict.OK


def test_missing_extra_is_a_note_with_its_install_line():
    base, server, train = doctor.check_libraries({"server": (), "train": ("torch", "opacus")})

    assert base.verdict is Verdict.OK
    assert server.verdict is Verdict.OK
    assert train.verdict is Verdict.NOTE
    assert train.found == "missing: torch, opacus"
    assert 'pip install "fedcell[train]"' in train.remedy


def test_missing_base_library_fails(monkeypatch):
    monkeypatch.setattr(doctor, "is_installed", lambda name: name != "paho")

    assert doctor.check_libraries({})[0] == doctor.Check(
        "base", Verdict.FAILED, "missing: paho", "pip install fedcell"
    )


@pytest.mark.parametrize("name", ["models", "tests"])
def test_distribution_that_installs_one_of_our_names_is_named(name):
    check = doctor.check_names({name: ["fedcell", "other-models"]}, FOLDERS)

    assert check.verdict is Verdict.FAILED
    assert check.found == f"the package '{name}' is also installed by other-models"
    assert "pip uninstall other-models" in check.remedy


def test_package_that_comes_from_elsewhere_fails():
    check = doctor.check_names({}, FOLDERS | {"models": Path("/elsewhere/models")})

    assert check.verdict is Verdict.FAILED
    assert "/elsewhere/models" in check.found


def test_packages_of_one_place_are_fine():
    assert doctor.check_names({"models": ["fedcell"]}, FOLDERS).verdict is Verdict.OK


def test_folders_are_found_without_importing():
    folders = doctor.package_folders(["models", "no_such_package_here"])

    assert folders["models"].name == "models"
    assert folders["no_such_package_here"] is None


def test_port_in_use_is_told_from_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        taken = doctor.check_port("127.0.0.1", port, "MQTT")
    free = doctor.check_port("127.0.0.1", port, "MQTT")

    assert (taken.verdict, taken.found) == (Verdict.NOTE, "in use (MQTT)")
    assert (free.verdict, free.found) == (Verdict.OK, "free (MQTT)")


def test_only_ports_that_a_command_of_today_uses_are_tried():
    assert [port for port, _ in doctor.PORTS] == [1883]


def test_address_of_another_machine_is_a_note():
    check = doctor.check_port("192.0.2.1", 1883, "MQTT")

    assert check.verdict is Verdict.NOTE
    assert check.remedy


def test_clock_before_the_release_fails_and_the_time_zone_does_not_matter():
    just_after = doctor.RELEASED_AT + timedelta(minutes=1)
    eastern = just_after.astimezone(timezone(timedelta(hours=-5)))

    assert doctor.check_clock(datetime(1970, 1, 1, tzinfo=UTC)).verdict is Verdict.FAILED
    assert doctor.check_clock(eastern).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("mosquitto", "has_embedded", "verdict"),
    [
        (Path("/usr/sbin/mosquitto"), False, Verdict.OK),
        (None, True, Verdict.NOTE),
        (None, False, Verdict.FAILED),
    ],
)
def test_broker_is_mosquitto_or_the_embedded_one(mosquitto, has_embedded, verdict):
    assert doctor.check_broker(mosquitto, has_embedded=has_embedded).verdict is verdict


def test_cells_are_counted_and_their_absence_is_a_note(tmp_path):
    assert doctor.check_cells(tmp_path).verdict is Verdict.NOTE

    (tmp_path / "lab.parquet").touch()

    assert doctor.check_cells(tmp_path).found == f"1 files in {tmp_path}"


def test_command_prints_json_for_machines(capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", "--json", "--cells", str(tmp_path)])

    answer = json.loads(capsys.readouterr().out)
    assert left.value.code == 0
    assert answer["ok"] is True
    assert {"python", "base", "names", "clock", "broker", "cells"} <= {
        check["name"] for check in answer["checks"]
    }


def test_command_ends_with_one_when_a_check_fails(capsys, monkeypatch):
    failed = doctor.Check("clock", Verdict.FAILED, "1970-01-01", "set the clock")
    monkeypatch.setattr("server.commands.doctor.examine", lambda **_: (failed,))

    with pytest.raises(SystemExit) as left:
        cli.main(["doctor"])

    assert left.value.code == 1
    assert capsys.readouterr().out == (
        "NO  clock         1970-01-01\n                  → set the clock\n"
    )
