"""What a node is told by the device's TOML file, and what its configuration says."""

import tomllib

import pytest
from flwr.common.config import parse_config_args

from edge_client import own_training
from edge_client.config import DeviceConfig, read_config
from edge_client.errors import InputError, InputMissingError
from edge_client.gateway import site as gateway_site
from edge_client.rounds_node.settings import (
    OTHER_VALUES,
    PATH_VALUES,
    RoundsSettings,
    address_of,
    as_toml,
    node_values,
    read_settings,
)
from edge_client.sensing import conditions


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "device.toml"
        path.write_text(text)
        return path

    return write


def test_every_value_that_a_node_reads_can_be_told():
    read = {
        value
        for module in (own_training, conditions, gateway_site)
        for name, value in vars(module).items()
        if name.endswith("_KEY") and isinstance(value, str)
    }

    assert read - {"telemetry-db", "store-key"} == PATH_VALUES | OTHER_VALUES


def test_the_table_stands_beside_the_settings_of_the_device(file):
    path = file(
        'store = "device.db"\n[node]\nsuperlink = "fleet:9443"\napp-pin = "pin.json"\n'
        'own-participations = 12\ntrain-metered = true\nconditions-file = "now.json"\n'
    )

    settings = read_settings(path)

    assert read_config({"config": str(path)}, {}).store == path.parent / "device.db"
    assert (settings.superlink, settings.app_pin) == ("fleet:9443", path.parent / "pin.json")
    assert settings.values == {
        "own-participations": 12,
        "train-metered": True,
        "conditions-file": str(path.parent / "now.json"),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[node]\nown-particpations = 3\n", "unknown setting node.own-particpations"),
        ("[node]\nown-epsilon = [1]\n", "is no text, number or truth value"),
        ("[node]\nsuperlink = 9443\n", "is no text"),
        ("[node]\nconditions-file = 3\n", "is no path"),
        ("node = 3\n", "is no table"),
        ("[node\n", "is no TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_name(file, text, words):
    with pytest.raises(InputError, match=words):
        read_settings(file(text))


def test_a_file_that_is_missing_is_a_missing_part(tmp_path):
    with pytest.raises(InputMissingError):
        read_settings(tmp_path / "none.toml")
    assert read_settings(None) == RoundsSettings()


def test_the_device_knows_most_of_it_by_itself_and_what_is_told_counts_first(tmp_path):
    config = DeviceConfig(store=tmp_path / "device.db", store_key=tmp_path / "store.key")
    told = RoundsSettings(values={"own-epsilon": 1.5, "hardware-id-file": "/serial"})

    values = node_values(config, told, policy_keys=tmp_path / "keys.json")

    assert values == {
        "telemetry-db": str(tmp_path / "device.db"),
        "policy-keys": str(tmp_path / "keys.json"),
        "store-key": str(tmp_path / "store.key"),
        "own-epsilon": 1.5,
        "hardware-id-file": "/serial",
    }


def test_flower_reads_the_values_as_they_are(tmp_path):
    values = {
        "telemetry-db": "/odd \"path\" with 'all'\\of\tit \x7f é",
        "own-epsilon": 1e-9,
        "own-participations": 3,
        "train-metered": False,
    }
    path = tmp_path / "node.toml"
    path.write_bytes(as_toml(values))

    assert tomllib.loads(path.read_text()) == values
    assert parse_config_args([str(path)]) == values


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("fleet.example:9443", ("fleet.example", 9443)),
        ("[2001:db8::1]:9443", ("2001:db8::1", 9443)),
    ],
)
def test_an_address_has_a_host_and_a_port(text, address):
    assert address_of(text) == address


@pytest.mark.parametrize("text", ["", "fleet", "fleet:", ":9443", "fleet:0", "fleet:65536"])
def test_what_is_no_address_is_refused_with_what_to_do(text):
    with pytest.raises(InputError, match="give --superlink HOST:PORT"):
        address_of(text)
