"""Raw telemetry: what one reading, one device and a whole fleet of readings are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NewType

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

DeviceId = NewType("DeviceId", str)

SECONDS_PER_DAY = 86_400

CAUSES = (
    "capacity_fade",
    "resistance_growth",
    "swelling",
    "charger_fault",
    "sudden_death",
)
CRITICALITIES = ("low", "medium", "high")


class Measurement(NamedTuple):
    """One measured channel of a reading.

    Attributes:
        name: field name, closing with its unit where it has one.
        unit: the unit in words.
        low: smallest valid value, inclusive.
        high: largest valid value, inclusive.
        cumulative: True for counters that only grow until they are reset.
    """

    name: str
    unit: str
    low: float
    high: float
    cumulative: bool = False


MEASUREMENTS = (
    Measurement("full_charge_capacity_mah", "mAh", 1.0, 1_000_000.0),
    Measurement("charge_cycle_count", "full cycles since new", 0.0, 100_000.0, cumulative=True),
    Measurement("charge_duration_min", "minutes of the last charge", 0.1, 2_880.0),
    Measurement("battery_temp_max_c", "degrees Celsius", -60.0, 120.0),
    Measurement("battery_temp_avg_c", "degrees Celsius", -60.0, 120.0),
    Measurement("unexpected_shutdown_count", "shutdowns since new", 0.0, 1e6, cumulative=True),
    Measurement("usage_hours", "hours in the interval", 0.0, 24.0 * 31),
    Measurement("internal_resistance_mohm", "milliohm", 0.01, 100_000.0),
)
MEASUREMENT_NAMES = tuple(measurement.name for measurement in MEASUREMENTS)
COLUMN = {name: column for column, name in enumerate(MEASUREMENT_NAMES)}


def day_of(at_s: Any) -> Any:
    """Return the number of the UTC day that a moment belongs to, a day's end included.

    Args:
        at_s: seconds since the epoch, a number or an array.
    """
    return -(-at_s // SECONDS_PER_DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a device's gauge said at one moment; None where it was not measured.

    Attributes:
        at: aware time, UTC.
        full_charge_capacity_mah: capacity of a full charge as the gauge estimates it.
        charge_cycle_count: full cycles since new.
        charge_duration_min: duration of the last charge completed in the interval.
        battery_temp_max_c: highest temperature in the interval.
        battery_temp_avg_c: mean temperature in the interval.
        unexpected_shutdown_count: shutdowns nobody asked for, since new.
        usage_hours: hours in use within the interval.
        internal_resistance_mohm: resistance as the gauge estimates it.
    """

    at: datetime
    full_charge_capacity_mah: float | None = None
    charge_cycle_count: float | None = None
    charge_duration_min: float | None = None
    battery_temp_max_c: float | None = None
    battery_temp_avg_c: float | None = None
    unexpected_shutdown_count: float | None = None
    usage_hours: float | None = None
    internal_resistance_mohm: float | None = None

    def __post_init__(self) -> None:
        """Refuse a time without a zone."""
        if self.at.tzinfo is None:
            message = f"at must carry a time zone, got {self.at!r}"
            raise ValueError(message)

    def values(self) -> tuple[float, ...]:
        """Return the measurements in the order of `MEASUREMENTS`, NaN where missing."""
        measured = (getattr(self, name) for name in MEASUREMENT_NAMES)
        return tuple(float("nan") if value is None else float(value) for value in measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What is known of a device from the day it was made.

    Attributes:
        device_id: stable identifier; never personal data.
        device_model: product name, a segment, never a model input.
        chemistry: cell chemistry, a segment.
        design_capacity_mah: capacity when new, as the maker states it, mAh.
        end_of_life_capacity_mah: full-charge capacity at which the maker replaces it, mAh.
        manufactured_at: aware time, UTC.
        region: coarse region, a segment.
        climate: climate class, a segment.
        criticality: what hangs on the device: low, medium or high.
    """

    device_id: DeviceId
    device_model: str
    chemistry: str
    design_capacity_mah: float
    end_of_life_capacity_mah: float
    manufactured_at: datetime
    region: str = "unknown"
    climate: str = "unknown"
    criticality: str = "medium"

    def __post_init__(self) -> None:
        """Refuse capacities that cannot be, unknown criticality and naive times."""
        if not 0 < self.end_of_life_capacity_mah < self.design_capacity_mah * 1.5:
            message = (
                "end_of_life_capacity_mah must be above 0 and below 1.5 x design_capacity_mah "
                f"({self.design_capacity_mah}), got {self.end_of_life_capacity_mah}"
            )
            raise ValueError(message)
        if self.criticality not in CRITICALITIES:
            message = f"criticality must be one of {CRITICALITIES}, got {self.criticality!r}"
            raise ValueError(message)
        if self.manufactured_at.tzinfo is None:
            message = f"manufactured_at must carry a time zone, got {self.manufactured_at!r}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceProfiles:
    """Profiles of a fleet, one array a field, all of shape (n_devices,).

    Capacities are float64 in mAh, `manufactured_at_s` int64 in seconds since the Unix epoch,
    the rest are object arrays of strings.
    """

    device_id: NDArray[np.object_]
    device_model: NDArray[np.object_]
    chemistry: NDArray[np.object_]
    design_capacity_mah: NDArray[np.float64]
    end_of_life_capacity_mah: NDArray[np.float64]
    manufactured_at_s: NDArray[np.int64]
    region: NDArray[np.object_]
    climate: NDArray[np.object_]
    criticality: NDArray[np.object_]

    def __len__(self) -> int:
        """Return the number of devices."""
        return len(self.device_id)

    def __getitem__(self, index: int) -> DeviceProfile:
        """Return the profile of one device."""
        return DeviceProfile(
            device_id=DeviceId(self.device_id[index]),
            device_model=self.device_model[index],
            chemistry=self.chemistry[index],
            design_capacity_mah=float(self.design_capacity_mah[index]),
            end_of_life_capacity_mah=float(self.end_of_life_capacity_mah[index]),
            manufactured_at=datetime.fromtimestamp(int(self.manufactured_at_s[index]), UTC),
            region=self.region[index],
            climate=self.climate[index],
            criticality=self.criticality[index],
        )

    def take(self, indices: NDArray[np.intp] | slice) -> DeviceProfiles:
        """Return the profiles of the devices at `indices`, in that order."""
        return DeviceProfiles(**{f.name: getattr(self, f.name)[indices] for f in fields(self)})

    @staticmethod
    def of(profiles: Iterable[DeviceProfile]) -> DeviceProfiles:
        """Stack single profiles."""
        rows = list(profiles)

        def text(name: str) -> NDArray[np.object_]:
            return np.array([getattr(row, name) for row in rows], dtype=object)

        return DeviceProfiles(
            device_id=text("device_id"),
            device_model=text("device_model"),
            chemistry=text("chemistry"),
            design_capacity_mah=np.array([row.design_capacity_mah for row in rows], float),
            end_of_life_capacity_mah=np.array(
                [row.end_of_life_capacity_mah for row in rows], float
            ),
            manufactured_at_s=np.array(
                [int(row.manufactured_at.timestamp()) for row in rows], np.int64
            ),
            region=text("region"),
            climate=text("climate"),
            criticality=text("criticality"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Telemetry:
    """Readings of many devices in one table.

    Within a device the rows keep the order in which the device recorded them, so that a clock
    that jumped back stays visible; `telemetry_audit.audit` sorts by time.

    Attributes:
        device_ids: n_devices identifiers.
        offsets: int64, shape (n_devices + 1,); rows offsets[i]:offsets[i + 1] are device i's.
        at_s: int64, shape (n_readings,), seconds since the Unix epoch.
        values: float32, shape (n_readings, 8), columns as `MEASUREMENTS`; NaN = not measured.
    """

    device_ids: tuple[str, ...]
    offsets: NDArray[np.int64]
    at_s: NDArray[np.int64]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse arrays whose shapes do not belong together."""
        if self.values.shape != (len(self.at_s), len(MEASUREMENTS)):
            message = f"values must have shape ({len(self.at_s)}, 8), got {self.values.shape}"
            raise ValueError(message)
        if len(self.offsets) != len(self.device_ids) + 1 or self.offsets[-1] != len(self.at_s):
            message = "offsets must hold n_devices + 1 row numbers and end with the row count"
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number of readings."""
        return len(self.at_s)

    def device_of_row(self) -> NDArray[np.intp]:
        """Return the device's index of each reading, shape (n_readings,)."""
        return np.repeat(np.arange(len(self.device_ids)), np.diff(self.offsets))

    def devices(self, start: int, stop: int) -> Telemetry:
        """Return the readings of the devices start:stop (views, nothing is copied)."""
        low, high = self.offsets[start], self.offsets[stop]
        return Telemetry(
            device_ids=self.device_ids[start:stop],
            offsets=self.offsets[start : stop + 1] - low,
            at_s=self.at_s[low:high],
            values=self.values[low:high],
        )

    def rows(self, keep: NDArray[np.bool_]) -> Telemetry:
        """Return only the readings where `keep` is True; devices without any stay listed."""
        if keep.all():
            return self
        kept = np.concatenate([[0], np.cumsum(keep)])
        return Telemetry(
            device_ids=self.device_ids,
            offsets=kept[self.offsets].astype(np.int64),
            at_s=self.at_s[keep],
            values=self.values[keep],
        )

    @staticmethod
    def of_device(device_id: str, readings: Sequence[Reading]) -> Telemetry:
        """Make the table of one device from its readings."""
        values = np.array([reading.values() for reading in readings], np.float32)
        return Telemetry(
            device_ids=(device_id,),
            offsets=np.array([0, len(readings)], np.int64),
            at_s=np.array([int(reading.at.timestamp()) for reading in readings], np.int64),
            values=values.reshape(len(readings), len(MEASUREMENTS)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What became of each device; never opened by prediction.

    Attributes:
        device_ids: n_devices identifiers.
        observed_until_s: int64, shape (n_devices,): last moment the outcome is known for.
        failed_at_s: float64, shape (n_devices,): moment of failure, NaN = censored.
        primary_cause: object, shape (n_devices,): one of `CAUSES`, or None where not known.
    """

    device_ids: tuple[str, ...]
    observed_until_s: NDArray[np.int64]
    failed_at_s: NDArray[np.float64]
    primary_cause: NDArray[np.object_]
