"""The example for a root that is never written, where each boot has another machine id."""

import json
import re
from itertools import count

import pytest

from edge_client.cli import main
from edge_client.provisioning import identity
from edge_client.systemd import FOLDER

SETTING = "FEDCELL_DEVICE_HARDWARE_ID_FILE"
DROP_INS = sorted(FOLDER.glob("*.service.d/20-read-only-root.conf"))
PROFILE = {
    "device_model": "Meter 3",
    "chemistry": "NMC111",
    "design_capacity_mah": 3000,
    "end_of_life_capacity_mah": 2400,
    "manufactured_at": "2025-06-01",
}


@pytest.fixture
def boot(tmp_path, monkeypatch, capsys):
    """Start the machine anew, and run what a unit runs; returns exit code and answer."""
    machine_id, boots = tmp_path / "machine-id", count(1)
    monkeypatch.setattr(identity, "MACHINE_ID", machine_id)
    monkeypatch.setattr(identity, "HARDWARE_ID_FILES", (machine_id,))
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    (tmp_path / "serial-number").write_bytes(b"1000000012345678\0")
    monkeypatch.delenv(SETTING, raising=False)

    def call(*words):
        machine_id.write_text(f"{next(boots):032x}\n")
        code = main([*words, "--store", str(tmp_path / "device.db")])
        said = capsys.readouterr()
        return code, said.out or said.err

    call.first = (
        *("init", "--profile", str(tmp_path / "profile.json")),
        *("--device-id-from", "machine-id", "--first-boot", "--json"),
    )
    return call


def named_files():
    """What the example's units name as the hardware's identifier."""
    return [
        re.findall(rf"^Environment={SETTING}=(.*)$", path.read_text(), re.MULTILINE)
        for path in DROP_INS
    ]


def test_device_with_another_machine_id_at_each_boot_counts_as_a_copy(boot):
    assert boot(*boot.first)[0] == 0
    code, said = boot("identity")
    assert code == 5
    assert "this is a copy" in said


def test_units_of_the_example_name_one_file_that_stays(boot, tmp_path, monkeypatch):
    assert [path.parent.name for path in DROP_INS] == [
        "fedcell-device.service.d",
        "fedcell-first-boot.service.d",
    ]
    assert named_files() == [[str(identity.HARDWARE_SERIAL)]] * 2

    monkeypatch.setenv(SETTING, str(tmp_path / identity.HARDWARE_SERIAL.name))
    made = json.loads(boot(*boot.first)[1])
    again = json.loads(boot(*boot.first)[1])
    assert again == made | {"made": False}
    assert made["device_id"] == identity.device_id_from(b"1000000012345678")
    assert boot("identity")[0] == 0


@pytest.mark.parametrize("name", ["README.md", "device.toml"])
def test_what_comes_with_the_units_says_so(name):
    assert "/etc/machine-id" in (FOLDER / name).read_text()
    assert "hardware_id_file" in (FOLDER / name).read_text()
