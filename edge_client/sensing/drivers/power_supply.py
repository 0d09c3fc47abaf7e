"""A pack as Linux shows it: one folder under `/sys/class/power_supply`."""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...errors import SensorError
from ..gauge_history import Look, after_reading, ended, history_of_json, looked, measured_over
from ..gauge_mapping import (
    MEANING,
    MEASURED,
    NUMBERS,
    TEXTS,
    GaugeFacts,
    GaugeStatus,
    is_system_battery,
    map_gauge,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from models.telemetry import Reading

    from ..gauge_history import GaugeHistory
    from ..gauge_mapping import GaugeMapping

logger = logging.getLogger(__name__)

ROOT = Path("/sys/class/power_supply")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
FACT = "gauge_history"
_MOST_BYTES = 4_096
_USABLE = (GaugeStatus.OK, GaugeStatus.NOT_YET_KNOWN)
_ON_POWER = frozenset({"Charging", "Full", "Not charging"})


class FactKeeper(Protocol):
    """Where the history is kept between two runs of the program: the device's store."""

    def fact(self, name: str) -> object:
        """Return a named value, None where it was never kept."""

    def keep_fact(self, name: str, value: object) -> None:
        """Keep a named value that JSON can carry."""


class PowerSupplySensor:
    """Reads one pack, and looks at it between readings for what one look cannot tell.

    Args:
        root: the folder of power supplies.
        battery: name of the one to read; None takes the only battery of the machine, once there
            is one: drivers may be loaded after the program has started.
        design_capacity_mah: of the profile.
        keeper: keeps the history; None forgets it at the end of the process.
        boot_id: file that names this run of the machine.
        awake_s: seconds for which the machine has been awake in this run.
        elapsed_s: seconds since this run began, sleep included.
    """

    def __init__(
        self,
        root: Path = ROOT,
        *,
        battery: str | None = None,
        design_capacity_mah: float | None = None,
        keeper: FactKeeper | None = None,
        boot_id: Path = BOOT_ID,
        awake_s: Callable[[], float] = time.monotonic,
        elapsed_s: Callable[[], float] | None = None,
    ) -> None:
        self.battery = battery
        self._is_chosen = battery is None
        self._root = root
        self._design_capacity_mah = design_capacity_mah
        self._keeper = keeper
        self._boot_id = boot_id
        self._awake_s = awake_s
        self._elapsed_s = elapsed_s or since_boot_s
        kept = None if keeper is None else keeper.fact(FACT)
        self._history = history_of_json(kept if isinstance(kept, dict) else None)
        self._mapping: GaugeMapping | None = None
        self._has_said_why = False

    @property
    def status(self) -> GaugeStatus:
        """Whether the gauge gave a full-charge capacity when it was last looked at."""
        return GaugeStatus.UNREADABLE if self._mapping is None else self._mapping.status

    def look(self, now: datetime) -> None:  # noqa: ARG002 - as every sensor that watches
        """Look at the gauge; the first look of a process is kept, the others with the reading.

        Raises:
            SensorError: no such battery, none at all, or several where none was named.
        """
        is_first = self._mapping is None
        boot = _boot_of(self._boot_id)
        facts = read_facts(self._folder())
        self._mapping = map_gauge(
            facts,
            design_capacity_mah=self._design_capacity_mah,
            mark=self._history.mark(boot),
        )
        self._history = looked(
            self._history,
            Look(
                facts=facts,
                mapping=self._mapping,
                boot=boot,
                awake_s=self._awake_s(),
                elapsed_s=self._elapsed_s(),
            ),
        )
        if is_first:
            self._keep(self._history)

    def read(self, now: datetime) -> Reading | None:
        """Return the reading of the interval since the last one that was kept.

        Returns:
            None where no rule gives the gauge a capacity: no model could use the rest.

        Raises:
            SensorError: the battery is not there, or nothing of it can be read.
        """
        from models.telemetry import MEASUREMENTS, Reading

        self.look(now)
        mapping = self._mapping
        if mapping is None or mapping.status in {GaugeStatus.UNREADABLE, GaugeStatus.NO_BATTERY}:
            what = f"{self.status.value.replace('_', ' ')}"
            raise SensorError(self._folder(), what, "check the battery, its driver and permissions")
        found = mapping.measurements | measured_over(self._history)
        # One value beyond its range would have the store refuse the whole reading, each time.
        measurements = {
            channel.name: found[channel.name]
            for channel in MEASUREMENTS
            if channel.name in found and channel.low <= found[channel.name] <= channel.high
        }
        if mapping.status not in _USABLE and "full_charge_capacity_mah" not in measurements:
            if not self._has_said_why:
                what = MEANING[mapping.status]
                logger.warning("no reading of %s: %s (%s)", self.battery, mapping.status, what)
            self._has_said_why = True
            return None
        self._has_said_why = False
        return Reading(at=now, **measurements)

    def keep(self) -> None:
        """Keep that the interval of the reading is over; until `kept` it may still fail."""
        self._keep(after_reading(self._history))

    def kept(self) -> None:
        """Begin the next interval: the reading is stored."""
        self._history = after_reading(self._history)

    def close(self) -> None:
        """Keep what was seen, and that the program has ended in order."""
        self._history = ended(self._history)
        self._keep(self._history)

    def _folder(self) -> Path:
        if self._is_chosen and not (self.battery and (self._root / self.battery).is_dir()):
            self.battery = the_only_battery(self._root)
        folder = self._root / (self.battery or "")
        if not folder.is_dir():
            remedy = "list them: fedcell-device sensors"
            raise SensorError(folder, "there is no such power supply", remedy)
        return folder

    def _keep(self, history: GaugeHistory) -> None:
        if self._keeper is not None:
            self._keeper.keep_fact(FACT, history.as_json() | {"status": self.status.value})


def batteries_in(root: Path) -> dict[str, GaugeFacts]:
    """Return the machine's own batteries by name, in order; none where the folder is not there."""
    try:
        folders = sorted(root.iterdir())
    except OSError:
        return {}
    found = {folder.name: read_facts(folder) for folder in folders if folder.is_dir()}
    return {name: facts for name, facts in found.items() if is_system_battery(facts)}


def the_only_battery(root: Path) -> str:
    """Return the name of the machine's battery.

    Raises:
        SensorError: there is none, or there are several.
    """
    names = [name for name, facts in batteries_in(root).items() if facts.present != 0]
    if len(names) > 1:
        remedy = f"name one: --sensor power_supply:{names[0]}"
        raise SensorError(root, f"has several batteries ({', '.join(names)})", remedy)
    if not names:
        remedy = "use another sensor, or fedcell-device record"
        raise SensorError(root, "has no battery of this machine", remedy)
    return names[0]


def read_facts(folder: Path) -> GaugeFacts:
    """Read what a power supply says; an attribute that cannot be read is missing."""
    texts = {name: text for name in TEXTS if (text := _text(folder / name)) is not None}
    numbers: dict[str, int] = {}
    for name in NUMBERS:
        with suppress(ValueError):
            numbers[name] = int(_text(folder / name) or "")
    return GaugeFacts(**texts, **numbers)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class PowerState:
    """How a machine is powered at one moment; None where nothing says it.

    Attributes:
        has_battery: whether a battery of the machine is there.
        is_charging: whether it is on external power, and none of its batteries gives any.
        percent: state of charge of the emptiest battery, 0 to 100.
    """

    has_battery: bool
    is_charging: bool | None = None
    percent: float | None = None


def power_state(root: Path) -> PowerState:
    """Return how the machine is powered.

    Args:
        root: the folder of power supplies; where it is not there, so is no battery.
    """
    batteries = [facts for facts in batteries_in(root).values() if facts.present != 0]
    if not batteries:
        return PowerState(has_battery=False)
    said = {facts.status for facts in batteries}
    if "Discharging" in said:
        is_charging: bool | None = False
    elif said <= _ON_POWER:
        is_charging = True
    else:
        is_charging = _is_plugged_in(root)
    percents = [_percent_of(facts) for facts in batteries]
    known = [percent for percent in percents if percent is not None]
    percent = min(known) if len(known) == len(percents) else None
    return PowerState(has_battery=True, is_charging=is_charging, percent=percent)


def _is_plugged_in(root: Path) -> bool | None:
    """Tell whether a supply that is no battery is online; None where there is no such supply."""
    texts = [
        text
        for folder in sorted(root.iterdir())
        if (_text(folder / "type") or "Battery") != "Battery"
        and (text := _text(folder / "online")) is not None
    ]
    return any(text != "0" for text in texts) if texts else None


def _percent_of(facts: GaugeFacts) -> float | None:
    if facts.capacity is not None:
        return float(facts.capacity)
    if facts.charge_now is None or not facts.charge_full:
        return None
    return 100.0 * facts.charge_now / facts.charge_full


def since_boot_s() -> float:
    """Return seconds since the machine was started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _text(path: Path) -> str | None:
    # Drivers refuse with ENODATA, EIO, ENODEV or EAGAIN where they do not know; whatever else lies
    # there, such as a pipe that nobody writes to, must not hold up the loop.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return os.read(handle, _MOST_BYTES).decode("utf-8", "replace").strip() or None
    except OSError:
        return None
    finally:
        os.close(handle)


def _boot_of(path: Path) -> str:
    return _text(path) or "unknown"


def attributes_of(facts: GaugeFacts) -> tuple[str, ...]:
    """Return the names of the attributes that could be read, without their values."""
    return tuple(name for name in MEASURED if getattr(facts, name) is not None)
