from datetime import timedelta
from pathlib import Path

import pytest

from server.config import (
    CONFIG_FILE,
    ENVIRONMENT_PREFIX,
    SETTINGS,
    ServerConfig,
    parse_address,
    read_config,
)
from server.errors import SettingError, SettingsMissingError
from tests.support.system_parts import REPOSITORY


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "hub.toml"
    file.write_text('db = "sqlite:///a"\nbroker = "a:1"\nkey = "k.pem"\ncontact_gap_days = 3\n')
    environment = {
        "FEDCELL_SERVER_CONFIG": str(file),
        "FEDCELL_SERVER_BROKER": "b:2",
        "FEDCELL_SERVER_HUMAN_CONTACT": "",
        "FEDCELL_DEVICE_BROKER": "x:9",
    }

    config = read_config({"db": "sqlite:///c", "key": None}, environment)

    assert config == ServerConfig(
        db="sqlite:///c", broker="b:2", key=tmp_path / "k.pem", contact_gap_days=3.0
    )
    assert config.broker_address() == ("b", 2)


def test_settings_become_policies():
    config = read_config({"first_retry_s": "2", "contact_gap_days": "3"}, {})

    assert config.notice_policy().contact_gap == timedelta(days=3)
    assert config.delivery_policy().first_retry == timedelta(seconds=2)
    assert config.delivery_policy().lifetime == timedelta(days=14)
    assert config.key == Path("fedcell-server.pem")


@pytest.mark.parametrize(
    ("setting", "value", "what"),
    [
        ("broker", "localhost", "is no address"),
        ("broker", ":1883", "is no address"),
        ("broker", "h:70000", "is no address"),
        ("first_retry_s", "soon", "must be a number"),
        ("first_retry_s", "nan", "must be a number"),
        ("notice_lifetime_days", "0", "from 1 to"),
        ("human_contact", "two\nlines", "must match"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(setting, value, what):
    with pytest.raises(SettingError, match=what) as refused:
        read_config({setting: value}, {}).broker_address()

    assert refused.value.setting == setting
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [("nonsense", "cannot be read"), ("brocker = 'a:1'", "brocker"), ("db = 7", "text")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, what):
    file = tmp_path / "hub.toml"
    file.write_text(text)

    with pytest.raises(SettingError, match=what):
        read_config({"config": str(file)}, {})


def test_a_missing_file_is_a_missing_part(tmp_path):
    with pytest.raises(SettingsMissingError) as missing:
        read_config({"config": str(tmp_path / "hub.toml")}, {})

    assert missing.value.exit_code == 4


def test_an_ipv6_address_is_taken_out_of_its_brackets():
    assert parse_address("broker", "[::1]:1883") == ("::1", 1883)


def test_every_setting_of_a_server_is_documented():
    reference = (REPOSITORY / "docs" / "reference" / "settings.md").read_text()
    rows = [
        f"| `{name}` | `{ENVIRONMENT_PREFIX}{name.upper()}` |" for name in (*SETTINGS, CONFIG_FILE)
    ]

    assert [row for row in rows if row not in reference] == []
