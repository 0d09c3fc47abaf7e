"""What a gauge says -> what a reading holds: one table of rules, each with its error.

Linux drivers differ in what they report. A rule is taken only where what it gives is what the
reading means; otherwise the measurement is missing, and `GaugeStatus` says so. Units and meaning of
the attributes are those of the kernel's `Documentation/ABI/testing/sysfs-class-power`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FULL_PERCENT = 95
LEAST_SWING_PERCENT = 40
LEAST_OF_DESIGN = 0.05
MOST_OF_DESIGN = 1.5
LEAST_TEMP_C, MOST_TEMP_C = -60.0, 120.0


class GaugeStatus(StrEnum):
    """Whether the gauge gives a full-charge capacity, and if not, why not."""

    OK = "ok"
    NOT_YET_KNOWN = "full_charge_capacity_not_yet_known"
    NO_FULL_CHARGE_CAPACITY = "no_full_charge_capacity"
    IMPLAUSIBLE = "implausible_full_charge_capacity"
    UNREADABLE = "gauge_unreadable"
    NO_BATTERY = "no_battery"


MEANING = {
    GaugeStatus.OK: "the gauge gives a full-charge capacity",
    GaugeStatus.NOT_YET_KNOWN: "it is computed once a charge has ended, or has moved by 40 %",
    GaugeStatus.NO_FULL_CHARGE_CAPACITY: "no rule gives one: predictions are not possible; see"
    " docs/how-to/integrate-firmware.md for what to measure instead",
    GaugeStatus.IMPLAUSIBLE: "what it gives is not 5 to 150 % of the design capacity: check the"
    " driver's unit (µAh) and design_capacity_mah of the profile",
    GaugeStatus.UNREADABLE: "no attribute of it can be read: check permissions and the driver",
    GaugeStatus.NO_BATTERY: "no battery is there, or it was taken out",
}
"""Each status in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeFacts:
    """What a Linux power supply says at one moment; None where it does not say it.

    Attributes:
        charge_full: capacity of a full charge, µAh.
        charge_full_design: the same when new, µAh.
        charge_now: charge in the pack, µAh.
        charge_counter: counter of charge, µAh; only its changes mean something.
        energy_full: energy of a full charge, µWh.
        energy_full_design: the same when new, µWh.
        voltage_min_design: design voltage, µV.
        capacity: state of charge, whole percent.
        state_of_health: capacity against new, whole percent.
        cycle_count: full cycles; 0 = not known, says the kernel.
        temp: tenths of a degree Celsius.
        internal_resistance: µΩ.
        status: `Charging`, `Discharging`, `Not charging`, `Full`, `Unknown`.
        technology: `Li-ion`, `Li-poly`, `LiFe`, ...
        present: 1 where a battery is there, 0 where it was taken out.
        scope: `System`, or `Device` for the battery of a mouse.
        type: `Battery`, `Mains`, `USB`, ...
    """

    charge_full: int | None = None
    charge_full_design: int | None = None
    charge_now: int | None = None
    charge_counter: int | None = None
    energy_full: int | None = None
    energy_full_design: int | None = None
    voltage_min_design: int | None = None
    capacity: int | None = None
    state_of_health: int | None = None
    cycle_count: int | None = None
    temp: int | None = None
    internal_resistance: int | None = None
    status: str | None = None
    technology: str | None = None
    present: int | None = None
    scope: str | None = None
    type: str | None = None

    def is_empty(self) -> bool:
        """Return whether nothing that describes a pack could be read."""
        return all(getattr(self, name) is None for name in MEASURED)


TEXTS = ("status", "technology", "scope", "type")
NUMBERS = tuple(entry.name for entry in fields(GaugeFacts) if entry.name not in TEXTS)
MEASURED = tuple(name for name in NUMBERS if name != "present")


@dataclass(frozen=True, slots=True)
class ChargeMark:
    """Where the counter of charge stood at a state of charge, in one run of the machine.

    Attributes:
        counter_uah: µAh.
        percent: whole percent.
        boot: which run of the machine; the counter may start anew in the next.
    """

    counter_uah: int
    percent: int
    boot: str


@dataclass(frozen=True, slots=True)
class CapacityRule:
    """One way to a full-charge capacity.

    Attributes:
        name: of the rule.
        needs: attributes of the power supply, and `design_capacity_mah` of the profile.
        formula: how the capacity in mAh follows.
        error: of the rule itself, beside the gauge's own.
        value: computes it, mAh; None where the rule does not apply now.
    """

    name: str
    needs: tuple[str, ...]
    formula: str
    error: str
    value: Callable[[GaugeFacts, float | None, ChargeMark | None], float | None]


def _of_charge(facts: GaugeFacts, _design: float | None, _mark: ChargeMark | None) -> float | None:
    return None if not facts.charge_full else facts.charge_full / 1000


def _of_energy_share(
    facts: GaugeFacts, design: float | None, _mark: ChargeMark | None
) -> float | None:
    if not (facts.energy_full and facts.energy_full_design and design):
        return None
    return design * facts.energy_full / facts.energy_full_design


def _of_energy(facts: GaugeFacts, _design: float | None, _mark: ChargeMark | None) -> float | None:
    if not (facts.energy_full and facts.voltage_min_design):
        return None
    return 1000 * facts.energy_full / facts.voltage_min_design


def _of_health(facts: GaugeFacts, design: float | None, _mark: ChargeMark | None) -> float | None:
    if not (facts.state_of_health and design):
        return None
    return design * facts.state_of_health / 100


def _of_charge_when_full(
    facts: GaugeFacts, _design: float | None, _mark: ChargeMark | None
) -> float | None:
    if not (facts.charge_now and facts.capacity) or facts.capacity < FULL_PERCENT:
        return None
    return facts.charge_now / 10 / min(facts.capacity, 100)


def _of_swing(facts: GaugeFacts, _design: float | None, mark: ChargeMark | None) -> float | None:
    if mark is None or facts.charge_counter is None or facts.capacity is None:
        return None
    percent = facts.capacity - mark.percent
    if abs(percent) < LEAST_SWING_PERCENT:
        return None
    return (facts.charge_counter - mark.counter_uah) / 10 / percent


CAPACITY_RULES = (
    CapacityRule("charge_full", ("charge_full",), "charge_full / 1000", "none", _of_charge),
    CapacityRule(
        "energy_share",
        ("energy_full", "energy_full_design", "design_capacity_mah"),
        "design_capacity_mah x energy_full / energy_full_design",
        "none in the trend; what the design figures are wrong by in the level",
        _of_energy_share,
    ),
    CapacityRule(
        "energy_full",
        ("energy_full", "voltage_min_design"),
        "1000 x energy_full / voltage_min_design",
        "none in the trend; up to 20 % in the level where the driver gives the least instead of"
        " the nominal voltage",
        _of_energy,
    ),
    CapacityRule(
        "state_of_health",
        ("state_of_health", "design_capacity_mah"),
        "design_capacity_mah x state_of_health / 100",
        "half a percent of design, by rounding: slopes over 10 days are steps",
        _of_health,
    ),
    CapacityRule(
        "charge_when_full",
        ("charge_now", "capacity"),
        "charge_now / 10 / capacity, where capacity is 95 % or more",
        "half a percent by rounding; a reading only when the pack is full",
        _of_charge_when_full,
    ),
    CapacityRule(
        "counter_swing",
        ("charge_counter", "capacity"),
        "change of charge_counter / 10 / change of capacity, over 40 % or more in one run",
        "up to 2.5 % by rounding, each time anew: medians take it out in weeks",
        _of_swing,
    ),
)
"""The first rule that applies is taken."""


@dataclass(frozen=True, slots=True)
class GaugeMapping:
    """What of a reading a gauge gives.

    Attributes:
        status: whether there is a full-charge capacity.
        rule: name of the rule that gave it, None where none did.
        measurements: by name, as `models.telemetry.Reading` has them.
        refused: attributes whose values cannot be, by name.
    """

    status: GaugeStatus
    rule: str | None
    measurements: dict[str, float]
    refused: dict[str, int]


def map_gauge(
    facts: GaugeFacts,
    *,
    design_capacity_mah: float | None = None,
    mark: ChargeMark | None = None,
) -> GaugeMapping:
    """Map what a gauge says at one moment.

    Args:
        facts: of the power supply.
        design_capacity_mah: of the profile; judges what is plausible, and two rules need it.
        mark: an earlier state of the counter of charge in the same run of the machine.

    Returns:
        Capacity, cycles and resistance. Temperatures, durations, hours and shutdowns need more than
        one moment: `edge_client.sensing.gauge_history`.
    """
    if facts.present == 0 or (facts.type is None and facts.is_empty()):
        return GaugeMapping(GaugeStatus.NO_BATTERY, None, {}, {})
    if facts.is_empty():
        return GaugeMapping(GaugeStatus.UNREADABLE, None, {}, {})
    measurements: dict[str, float] = {}
    refused: dict[str, int] = {}
    status, rule, capacity = _capacity(facts, design_capacity_mah, mark, refused)
    if capacity is not None:
        measurements["full_charge_capacity_mah"] = capacity
    if facts.cycle_count is not None and facts.cycle_count > 0:
        measurements["charge_cycle_count"] = float(facts.cycle_count)
    elif facts.cycle_count is not None and facts.cycle_count < 0:
        refused["cycle_count"] = facts.cycle_count
    if facts.internal_resistance is not None and facts.internal_resistance > 0:
        measurements["internal_resistance_mohm"] = facts.internal_resistance / 1000
    if facts.temp is not None and temperature_c(facts) is None:
        refused["temp"] = facts.temp
    return GaugeMapping(status, rule, measurements, refused)


def temperature_c(facts: GaugeFacts) -> float | None:
    """Return the temperature in degrees Celsius, None where there is none that can be."""
    if facts.temp is None or not LEAST_TEMP_C <= facts.temp / 10 <= MOST_TEMP_C:
        return None
    return facts.temp / 10


def is_system_battery(facts: GaugeFacts) -> bool:
    """Return whether a power supply is a pack of the machine itself."""
    return facts.type == "Battery" and facts.scope != "Device"


def _capacity(
    facts: GaugeFacts,
    design_capacity_mah: float | None,
    mark: ChargeMark | None,
    refused: dict[str, int],
) -> tuple[GaugeStatus, str | None, float | None]:
    for rule in CAPACITY_RULES:
        value = rule.value(facts, design_capacity_mah, mark)
        if value is None:
            continue
        if _is_plausible(value, design_capacity_mah):
            return GaugeStatus.OK, rule.name, value
        refused |= {
            name: number
            for name in rule.needs
            if isinstance(number := getattr(facts, name, None), int)
        }
    if refused:
        return GaugeStatus.IMPLAUSIBLE, None, None
    if facts.capacity is not None and (facts.charge_counter or facts.charge_now):
        return GaugeStatus.NOT_YET_KNOWN, None, None
    return GaugeStatus.NO_FULL_CHARGE_CAPACITY, None, None


def _is_plausible(capacity_mah: float, design_capacity_mah: float | None) -> bool:
    if design_capacity_mah is None:
        return capacity_mah > 0
    share = capacity_mah / design_capacity_mah
    return LEAST_OF_DESIGN <= share <= MOST_OF_DESIGN


def rules_table() -> str:
    """Return the rules as a Markdown table (docs/how-to/integrate-firmware.md)."""
    lines = ["| rule | needs | full_charge_capacity_mah | error of the rule |", "|---|---|---|---|"]
    lines += [
        f"| `{rule.name}` | {', '.join(f'`{name}`' for name in rule.needs)} | {rule.formula}"
        f" | {rule.error} |"
        for rule in CAPACITY_RULES
    ]
    return "\n".join(lines) + "\n"
