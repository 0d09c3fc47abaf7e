"""Every setting of a process stands in the reference, under each of its names."""

from edge_client.config import CONFIG_FILE, ENVIRONMENT_PREFIX, SETTINGS
from tests.support.system_parts import REPOSITORY

REFERENCE = (REPOSITORY / "docs" / "reference" / "settings.md").read_text()


def test_every_setting_of_a_device_is_documented():
    rows = [
        f"| `{name}` | `{ENVIRONMENT_PREFIX}{name.upper()}` |" for name in (*SETTINGS, CONFIG_FILE)
    ]

    assert [row for row in rows if row not in REFERENCE] == []
