"""Every setting of a process stands in the reference, under each of its names."""

import re
from dataclasses import MISSING, fields

import pytest

from edge_client import config as device
from server import config as server
from tests.support.system_parts import REPOSITORY

REFERENCE = (REPOSITORY / "docs" / "reference" / "settings.md").read_text()
ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| `(?P<variable>\w+)` \| (?P<what>.+) \| (?P<default>.+) \|$",
    re.MULTILINE,
)
DOCUMENTED = {match["variable"]: match for match in ROW.finditer(REFERENCE)}
PROCESSES = pytest.mark.parametrize(
    ("module", "settings"),
    [(device, device.DeviceConfig), (server, server.ServerConfig)],
    ids=["device", "server"],
)


@PROCESSES
def test_every_setting_is_documented_and_no_other(module, settings):
    prefix = module.ENVIRONMENT_PREFIX
    read = {prefix + name.upper(): name for name in (*module.SETTINGS, module.CONFIG_FILE)}
    documented = {
        variable: match["name"]
        for variable, match in DOCUMENTED.items()
        if variable.startswith(prefix)
    }

    assert documented == read


@PROCESSES
def test_documented_defaults_are_the_ones_in_use(module, settings):
    defaults = {
        module.ENVIRONMENT_PREFIX + entry.name.upper(): entry.default
        for entry in fields(settings)
        if entry.default not in {MISSING, None}
    }
    shown = {
        variable: f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        for variable, default in defaults.items()
    }

    assert {variable: DOCUMENTED[variable]["default"] for variable in shown} == shown
