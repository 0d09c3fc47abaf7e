import re
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import pytest

from edge_client.config import SETTINGS, DeviceConfig, read_config, what_is
from edge_client.errors import InputError, InputMissingError


def test_defaults_lie_where_the_system_keeps_state():
    config = read_config({}, {"HOME": "/home/ann"})
    assert config.store == Path("/home/ann/.local/state/fedcell/device.db")
    assert config.bundle == "installed"
    assert config.broker_address() == ("127.0.0.1", 1883)
    assert read_config({}, {"XDG_STATE_HOME": "/s"}).store == Path("/s/fedcell/device.db")


def test_flags_win_over_environment_over_file(tmp_path):
    file = tmp_path / "device.toml"
    file.write_text('store = "f.db"\nbroker = "file:1"\nbundle = "default"\n')
    environment = {
        "FEDCELL_DEVICE_CONFIG": str(file),
        "FEDCELL_DEVICE_BROKER": "env:2",
        "FEDCELL_DEVICE_STORE": "/env.db",
    }
    config = read_config({"store": "/flag.db"}, environment)
    assert (config.store, config.broker, config.bundle) == (Path("/flag.db"), "env:2", "default")


def test_paths_in_a_file_are_seen_from_the_file(tmp_path):
    file = tmp_path / "device.toml"
    file.write_text('store = "f.db"\nserver_key = "/etc/key.json"\n')
    config = read_config({"config": str(file)}, {})
    assert config.store == tmp_path / "f.db"
    assert config.server_key == Path("/etc/key.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("store = ", "is no TOML"),
        ('colour = "red"', "unknown setting colour"),
        ("broker = 3", "broker is no text"),
    ],
)
def test_wrong_file_is_named(tmp_path, content, says):
    file = tmp_path / "device.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=says) as refused:
        read_config({"config": str(file)}, {})
    assert refused.value.where == str(file)


def test_missing_file_is_a_missing_part(tmp_path):
    with pytest.raises(InputMissingError):
        read_config({"config": str(tmp_path / "none.toml")}, {})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hub.example:8883", ("hub.example", 8883)),
        ("hub.example", ("hub.example", 1883)),
        ("[::1]:1884", ("::1", 1884)),
        ("[::1]", ("::1", 1883)),
        ("::1", ("::1", 1883)),
    ],
)
def test_broker_address(text, address):
    assert DeviceConfig(store=Path("x"), broker=text).broker_address() == address


@pytest.mark.parametrize("text", ["", ":1883", "hub:", "hub:0", "hub:99999", "hub:mqtt"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InputError, match="host:port"):
        DeviceConfig(store=Path("x"), broker=text).broker_address()


def test_every_setting_is_documented():
    documented = re.findall(r"^        (\w+): ", DeviceConfig.__doc__, re.MULTILINE)
    assert documented == [entry.name for entry in fields(DeviceConfig)]
    assert all(what_is(setting) for setting in SETTINGS)


def test_noise_is_off_unless_its_epsilon_is_given():
    assert read_config({}, {"HOME": "/"}).noise_epsilon() is None
    assert read_config({"band_epsilon": "1.5"}, {"HOME": "/"}).noise_epsilon() == Fraction(3, 2)
    assert read_config({"band_epsilon": "1/3"}, {"HOME": "/"}).noise_epsilon() == Fraction(1, 3)


@pytest.mark.parametrize("text", ["0", "-1", "17", "much", "1/0", "nan", "inf", "1e400"])
def test_noise_needs_an_epsilon_that_protects_and_can_be_drawn(text):
    with pytest.raises(InputError, match="band_epsilon") as refused:
        read_config({"band_epsilon": text}, {"HOME": "/"}).noise_epsilon()
    assert "give a number from 0.01 to 16" in str(refused.value)
