"""A sensor, its schedule and the device's store, put together for an agent's main loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..errors import InputError, ReadingRefusedError, SensorError, StoreError, UsageError
from ..sensors import WatchingSensor
from .sampling import SamplingSettings, after_failure, after_look, after_reading, age_s, begin

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from models.telemetry import Reading

    from ..client import EdgeClient
    from ..config import DeviceConfig
    from ..sensors import Sensor
    from .sampling import Schedule

logger = logging.getLogger(__name__)

NO_SENSOR = "none"
POWER_SUPPLY = "power_supply"
REPLAY = "csv"
_KNOWN = f"give {NO_SENSOR}, {POWER_SUPPLY}, {POWER_SUPPLY}:NAME or {REPLAY}:FILE"


class Sampler:
    """Takes readings when they are due; call `poll` from the main loop, as often as you like.

    Args:
        client: the open device; readings go to its store.
        sensor: the gauge.
        settings: how often.
        now: aware time of the device.
        elapsed_s: now, on the clock of `edge_client.sensing.sampling`.
    """

    def __init__(
        self,
        client: EdgeClient,
        sensor: Sensor,
        settings: SamplingSettings,
        *,
        now: datetime,
        elapsed_s: float,
    ) -> None:
        self._client = client
        self._sensor = sensor
        self._has_failed = False
        self.readings = self.failures = self.refusals = 0
        self._schedule: Schedule = begin(
            settings,
            device_id=client.profile.device_id,
            elapsed_s=elapsed_s,
            since_last_s=age_s(last_reading_at(client), now),
        )

    def wait_s(self, elapsed_s: float) -> float:
        """Return the seconds until `poll` has something to do."""
        return self._schedule.wait_s(elapsed_s)

    def poll(self, *, now: datetime, elapsed_s: float) -> Reading | None:
        """Take a reading or look at the gauge, where one of them is due.

        A sensor that fails is named in the log once, and its return once. A reading that breaks a
        rule is counted in the store.

        Returns:
            The reading that was stored, None where there was none.

        Raises:
            StoreError: the store cannot take it; a call after some minutes tries again.
        """
        schedule = self._schedule
        try:
            if schedule.reading_is_due(elapsed_s):
                return self._read(now, elapsed_s)
            if schedule.look_is_due(elapsed_s):
                self._schedule = after_look(schedule, elapsed_s)
                if isinstance(self._sensor, WatchingSensor):
                    self._sensor.look(now)
        except (SensorError, InputError) as error:
            self._schedule = after_failure(schedule, elapsed_s)
            self.failures += 1
            if not self._has_failed:
                logger.warning("no reading, asked again: %s", error)
            self._has_failed = True
        return None

    def close(self) -> None:
        """Let a sensor that watches keep what it saw; call it when the program ends in order."""
        if isinstance(self._sensor, WatchingSensor):
            try:
                self._sensor.close()
            except StoreError as error:
                logger.warning("what the sensor saw last is not kept: %s", error)

    def _read(self, now: datetime, elapsed_s: float) -> Reading | None:
        stored = None
        try:
            reading = self._sensor.read(now)
        except ReadingRefusedError as refusal:
            self.refusals += 1
            self._client.store.count_refusal(refusal.reason)
        else:
            # A store that cannot take it is asked again soon, not at each turn of the loop.
            self._schedule = after_failure(self._schedule, elapsed_s)
            stored = None if reading is None else self._store(reading, now)
            if self._has_failed:
                logger.warning("the sensor gives readings again")
            self._has_failed = False
        self._schedule = after_reading(self._schedule, elapsed_s)
        return stored

    def _store(self, reading: Reading, now: datetime) -> Reading | None:
        # One transaction: a power cut leaves reading and history as they were, or both anew.
        with self._client.store.transaction():
            try:
                self._client.record(reading, now=now)
            except ReadingRefusedError as refusal:
                self.refusals += 1
                logger.warning("a reading was refused: %s", refusal)
                stored = None
            else:
                self.readings += 1
                stored = reading
            if isinstance(self._sensor, WatchingSensor):
                self._sensor.keep()
        if isinstance(self._sensor, WatchingSensor):
            self._sensor.kept()
        return stored


def sampler_of(
    config: DeviceConfig, client: EdgeClient, *, now: datetime, elapsed_s: float
) -> Sampler | None:
    """Return the sampler that the settings ask for, None for no sensor.

    Args:
        config: `sensor`, `sample_every_h` and `look_every_min` are read.
        client: the open device.
        now: aware time of the device.
        elapsed_s: now, on the clock of `edge_client.sensing.sampling`.

    Raises:
        UsageError: the setting names no sensor.
        InputError: the file cannot be read.
    """
    sensor = sensor_of(config.sensor, client)
    if sensor is None:
        return None
    settings = SamplingSettings(
        every_s=3600.0 * config.sample_every_h, look_every_s=60.0 * config.look_every_min
    )
    return Sampler(client, sensor, settings, now=now, elapsed_s=elapsed_s)


def last_reading_at(client: EdgeClient) -> datetime | None:
    """Return when the reading that was recorded last claims to be, None where there is none."""
    from datetime import UTC, datetime

    rows = client.store.rows("SELECT at_s FROM reading ORDER BY sequence DESC LIMIT 1")
    return datetime.fromtimestamp(rows[0][0], UTC) if rows else None


def sensor_of(
    choice: str, client: EdgeClient, *, power_supplies: Path | None = None
) -> Sensor | None:
    """Open the sensor that a setting names.

    Args:
        choice: `none`, `power_supply`, `power_supply:NAME` or `csv:FILE`.
        client: the device that it belongs to; a sensor that watches keeps its history there.
        power_supplies: the folder of power supplies; None takes Linux's.

    Raises:
        UsageError: the setting names none of these.
        InputError: the file cannot be read.
    """
    from pathlib import Path

    from .drivers.power_supply import ROOT, PowerSupplySensor

    kind, _, rest = choice.partition(":")
    if choice == NO_SENSOR:
        return None
    if kind == POWER_SUPPLY:
        return PowerSupplySensor(
            power_supplies or ROOT,
            battery=rest or None,
            design_capacity_mah=client.profile.design_capacity_mah,
            keeper=client.store,
        )
    if kind == REPLAY and rest:
        from .drivers.csv_replay import CsvReplay

        return CsvReplay(Path(rest), device_id=client.profile.device_id)
    raise UsageError("sensor", f"no sensor is called {choice!r}", _KNOWN)
