"""Where a device looks for its conditions: its power supplies, its load, and its firmware's word.

Linux shows power and load. What it does not show, or shows wrongly, the firmware writes to a small
JSON file, any of `charging`, `battery_percent`, `idle` and `metered`; what stands there counts in
the place of what Linux says. A file that is named and is missing, older than an hour or unreadable
says nothing, and then the device sits out.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ..eligibility import Conditions, EligibilityRule
from ..node_values import flag_of, number_of, path_of
from .drivers.power_supply import ROOT, power_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FRESH_S: Final = 3600.0
"""Seconds for which the firmware's word holds."""
NEEDS_CHARGING_KEY = "train-needs-charging"
"""Key: `false` lets a device with a battery train on it; default `true`."""
LEAST_BATTERY_KEY = "train-least-battery"
"""Key: percent from which a device with a battery trains; 0 does not look; default 30."""
MOST_LOAD_KEY = "train-most-load"
"""Key: most load a core at which it trains; 0 does not look; default 1.0 where there is a battery,
0 where there is none."""
METERED_KEY = "train-metered"
"""Key: `true` trains on a metered network, too; default `false`."""
IS_METERED_KEY = "network-metered"
"""Key: whether the device's network costs money by volume; default `false`."""
CONDITIONS_FILE_KEY = "conditions-file"
"""Key that names the file that the firmware writes; default none."""
POWER_SUPPLIES_KEY = "power-supplies"
"""Key that names the folder of power supplies; default `/sys/class/power_supply`."""
WAIT_KEY = "train-wait-s"
"""Key: seconds for which an invited device waits until it may train, at most half of the round's
deadline; default 0."""

_MOST_WAIT_S = 86_400
_MOST_BYTES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionSources:
    """Where the conditions of this device are looked for.

    Attributes:
        power_supplies: the folder in which Linux shows them.
        conditions_file: that the firmware writes, None where it writes none.
        is_metered: what the configuration says of the network.
    """

    power_supplies: Path = ROOT
    conditions_file: Path | None = None
    is_metered: bool = False

    def look(self, *, now_s: float) -> Conditions:
        """Look at everything once.

        Args:
            now_s: seconds since 1970, by which the firmware's word is old or new.
        """
        power = power_state(self.power_supplies)
        found = Conditions(
            has_battery=power.has_battery,
            is_charging=power.is_charging,
            battery_percent=power.percent,
            load_per_core=_load_per_core(),
            is_metered=self.is_metered,
        )
        if self.conditions_file is None:
            return found
        return told_by_firmware(found, _read_told(self.conditions_file, now_s=now_s))


def told_by_firmware(found: Conditions, told: Mapping[str, Any] | None) -> Conditions:
    """Put the firmware's word in the place of what was found.

    Args:
        found: without it.
        told: what the file says; None where it says nothing that can be believed.
    """
    if told is None:
        return replace(found, is_told=False)
    charging, percent = told.get("charging"), told.get("battery_percent")
    flags = (charging, told.get("idle"), told.get("metered"))
    if not all(flag is None or isinstance(flag, bool) for flag in flags):
        return replace(found, is_told=False)
    if percent is not None and (isinstance(percent, bool) or not isinstance(percent, int | float)):
        return replace(found, is_told=False)
    return replace(
        found,
        has_battery=found.has_battery or charging is not None or percent is not None,
        is_charging=found.is_charging if charging is None else charging,
        battery_percent=found.battery_percent if percent is None else float(percent),
        is_idle=told.get("idle"),
        is_metered=found.is_metered if told.get("metered") is None else told["metered"],
    )


def eligibility_of(node_config: Mapping[str, object]) -> tuple[EligibilityRule, ConditionSources]:
    """Read when a device trains from its node's configuration.

    Args:
        node_config: of the SuperNode.

    Raises:
        InputError: a value of it cannot be used.
    """
    rule = EligibilityRule(
        needs_charging=flag_of(node_config, NEEDS_CHARGING_KEY, default=True),
        allows_metered=flag_of(node_config, METERED_KEY, default=False),
    )
    percent = number_of(node_config, LEAST_BATTERY_KEY, most=100)
    if percent is not None:
        rule = replace(rule, least_battery_percent=percent)
    wait = number_of(node_config, WAIT_KEY, most=_MOST_WAIT_S)
    if wait is not None:
        rule = replace(rule, wait_s=wait)
    rule = replace(rule, most_load_per_core=number_of(node_config, MOST_LOAD_KEY, most=1000))
    sources = ConditionSources(
        power_supplies=path_of(node_config, POWER_SUPPLIES_KEY) or ROOT,
        conditions_file=path_of(node_config, CONDITIONS_FILE_KEY),
        is_metered=flag_of(node_config, IS_METERED_KEY, default=False),
    )
    return rule, sources


def _read_told(file: Path, *, now_s: float) -> Mapping[str, Any] | None:
    try:
        if abs(now_s - file.stat().st_mtime) > FRESH_S or not file.is_file():
            return None
        with file.open("rb") as opened:
            value = json.loads(opened.read(_MOST_BYTES))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _load_per_core() -> float | None:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None
