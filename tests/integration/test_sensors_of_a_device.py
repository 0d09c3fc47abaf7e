"""Drivers on a recorded tree, and the sampler on a real store."""

import logging
import os
import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from edge_client import EdgeClient
from edge_client.config import DeviceConfig
from edge_client.errors import (
    InputError,
    ReadingRefusedError,
    SensorError,
    StoreBusyError,
    UsageError,
)
from edge_client.sensing.drivers.callback import CallbackSensor
from edge_client.sensing.drivers.csv_replay import CsvReplay
from edge_client.sensing.drivers.power_supply import (
    FACT,
    PowerSupplySensor,
    attributes_of,
    batteries_in,
    read_facts,
    since_boot_s,
)
from edge_client.sensing.gauge_mapping import GaugeStatus
from edge_client.sensing.sampler import Sampler, last_reading_at, sampler_of, sensor_of
from edge_client.sensing.sampling import SamplingSettings
from tests.support.edge_devices import NOW, new_store, reading

TREES = Path(__file__).parents[1] / "golden" / "power_supply"
SIX_HOURS_S = 6 * 3600.0


class Machine:
    """A machine's clocks and name of its run, set by the test; the tree is a copy to write to."""

    def __init__(self, folder, tree):
        self.root = folder / tree
        shutil.copytree(TREES / tree, self.root)
        self.boot_id = folder / "boot_id"
        self.boot("first")
        self.elapsed_s = 100.0

    def boot(self, name):
        self.boot_id.write_text(f"{name}\n")

    def say(self, supply, **attributes):
        for name, value in attributes.items():
            (self.root / supply / name).write_text(f"{value}\n")

    def sensor(self, keeper=None, **choices):
        return PowerSupplySensor(
            self.root,
            keeper=keeper,
            boot_id=self.boot_id,
            awake_s=lambda: self.elapsed_s,
            elapsed_s=lambda: self.elapsed_s,
            **choices,
        )


@pytest.mark.parametrize(
    ("tree", "battery", "design", "status", "capacity_mah"),
    [
        ("charge_laptop", "BAT0", 4384.0, GaugeStatus.OK, 3651.0),
        ("energy_laptop", "BAT0", 4920.0, GaugeStatus.OK, 4920.0 * 44.37 / 57.02),
        ("phone", "battery", 3100.0, GaugeStatus.NOT_YET_KNOWN, None),
        ("gauge_with_resistance", "qcom-battmgr-bat", 3000.0, GaugeStatus.OK, 2730.0),
        ("no_capacity", "axp20x-battery", 3000.0, GaugeStatus.NO_FULL_CHARGE_CAPACITY, None),
        ("odd_values", "BAT1", 3100.0, GaugeStatus.IMPLAUSIBLE, None),
    ],
)
def test_recorded_machine_gives_what_its_gauge_can(
    tmp_path, tree, battery, design, status, capacity_mah
):
    sensor = Machine(tmp_path, tree).sensor(design_capacity_mah=design)
    made = sensor.read(NOW)

    assert (sensor.battery, sensor.status) == (battery, status)
    if capacity_mah is not None:
        assert made.full_charge_capacity_mah == pytest.approx(capacity_mah)
    elif status is GaugeStatus.NOT_YET_KNOWN:
        assert made.full_charge_capacity_mah is None
        assert made.battery_temp_avg_c == 28.7
    else:
        assert made is None


def test_reading_holds_cycles_and_resistance_and_no_maximum_of_one_look(tmp_path):
    laptop = Machine(tmp_path / "a", "charge_laptop").sensor(design_capacity_mah=4384.0)
    gauge = Machine(tmp_path / "b", "gauge_with_resistance").sensor(design_capacity_mah=3000.0)

    assert laptop.read(NOW).charge_cycle_count == 312
    made = gauge.read(NOW)
    assert made.internal_resistance_mohm == 48.5
    assert made.battery_temp_avg_c == 24.1
    assert made.battery_temp_max_c is None


def test_mouse_is_no_battery_of_the_machine():
    assert list(batteries_in(TREES / "energy_laptop")) == ["BAT0"]


def test_attribute_that_cannot_be_read_is_missing_and_a_dead_gauge_says_so(tmp_path):
    machine = Machine(tmp_path, "charge_laptop")
    folder = machine.root / "BAT0"
    sensor = machine.sensor(design_capacity_mah=4384.0)
    # Reading a folder fails for root too, as a driver's ENODATA does.
    (folder / "cycle_count").unlink()
    (folder / "cycle_count").mkdir()
    assert sensor.read(NOW).charge_cycle_count is None
    for file in folder.iterdir():
        if file.name not in {"type", "present", "cycle_count"}:
            file.unlink()

    with pytest.raises(SensorError, match="gauge unreadable"):
        sensor.read(NOW)
    assert attributes_of(read_facts(folder)) == ()


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    tree = Machine(tmp_path, "charge_laptop").root
    capacity = tree / "BAT0" / "charge_full"
    capacity.unlink()
    os.mkfifo(capacity)
    cycles = tree / "BAT0" / "cycle_count"
    cycles.unlink()
    cycles.symlink_to("/dev/zero")
    found = []
    looker = threading.Thread(target=lambda: found.append(batteries_in(tree)), daemon=True)
    looker.start()
    looker.join(5)

    assert found, "the reader waits for a pipe that nobody writes to"
    facts = found[0]["BAT0"]
    assert (facts.charge_full, facts.cycle_count) == (None, None)
    assert facts.status == "Discharging"


@pytest.mark.parametrize(
    ("tree", "battery", "says"),
    [
        ("unplugged", None, "has no battery of this machine"),
        ("charge_laptop", "BAT7", "there is no such power supply; list them: fedcell-device"),
        ("nowhere", None, "has no battery of this machine"),
    ],
)
def test_machine_without_the_battery_is_refused_with_a_remedy(tree, battery, says):
    with pytest.raises(SensorError, match=says):
        PowerSupplySensor(TREES / tree, battery=battery).read(NOW)


def test_battery_that_comes_later_is_read_then(tmp_path):
    machine = Machine(tmp_path, "charge_laptop")
    (machine.root / "BAT0").rename(tmp_path / "out")
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db") as client:
        sampler = sampling(client, machine.sensor(client.store))
        assert sampler.poll(now=NOW, elapsed_s=0.0) is None
        (tmp_path / "out").rename(machine.root / "BAT0")

        assert sampler.poll(now=NOW, elapsed_s=300.0).full_charge_capacity_mah == 3651.0
        assert sampler.failures == 1


def test_two_batteries_want_a_name(tmp_path):
    machine = Machine(tmp_path, "charge_laptop")
    shutil.copytree(machine.root / "BAT0", machine.root / "BAT1")

    with pytest.raises(SensorError, match=r"several batteries \(BAT0, BAT1\); name one"):
        machine.sensor().look(NOW)
    assert machine.sensor(battery="BAT1").read(NOW).full_charge_capacity_mah == 3651.0


def test_phone_gives_a_capacity_after_a_charge_of_forty_percent(tmp_path):
    machine = Machine(tmp_path, "phone")
    sensor = machine.sensor(design_capacity_mah=3100.0)
    sensor.look(NOW)
    machine.elapsed_s += 1200
    machine.say("battery", capacity=80, charge_counter=2_434_000)

    assert sensor.read(NOW).full_charge_capacity_mah == pytest.approx(3000.0)


def test_shutdown_that_nobody_asked_for_is_counted_across_processes(tmp_path):
    machine = Machine(tmp_path, "charge_laptop")
    with new_store(tmp_path) as store:
        machine.sensor(store).look(NOW)
        machine.boot("second")
        sensor = machine.sensor(store)
        assert sensor.read(NOW).unexpected_shutdown_count == 1
        sensor.close()
        machine.boot("third")

        assert machine.sensor(store).read(NOW).unexpected_shutdown_count == 1
        assert store.fact(FACT)["shutdowns"] == 1


def test_clock_of_the_machine_counts_on():
    first = since_boot_s()

    assert 0 < first <= since_boot_s()


def test_replay_gives_each_reading_when_its_time_has_come(tmp_path):
    file = tmp_path / "life.csv"
    file.write_text(
        "at,usage_hours\n2026-06-01T06:00:00Z,1\n2026-06-01T07:00:00,2\n2026-06-01T18:00:00Z,3\n"
    )
    sensor = CsvReplay(file)
    assert sensor.read(NOW).usage_hours == 1
    with pytest.raises(ReadingRefusedError, match="naive_time"):
        sensor.read(NOW)
    assert sensor.read(NOW) is None
    assert sensor.read(NOW + timedelta(hours=6)).usage_hours == 3
    assert sensor.has_ended
    assert sensor.read(NOW + timedelta(days=1)) is None

    shifted = CsvReplay(file, shift=timedelta(days=1))
    assert shifted.read(NOW) is None
    assert shifted.read(NOW + timedelta(days=1)).at == NOW + timedelta(hours=18)


def test_function_of_firmware_is_a_sensor():
    answers = iter([{"usage_hours": 1.5}, None, {"at": "2026-06-01T11:00:00Z", "usage_hours": 1}])
    sensor = CallbackSensor(lambda: next(answers))

    assert sensor.read(NOW).at == NOW
    assert sensor.read(NOW) is None
    assert sensor.read(NOW).at == NOW - timedelta(hours=1)
    with pytest.raises(SensorError, match="the sensor's function: failed with StopIteration"):
        sensor.read(NOW)


@pytest.mark.parametrize(
    ("gives", "error", "says"),
    [
        ({"volts": 3}, InputError, "unknown field volts"),
        ({"at": "2026-06-01T11:00:00"}, ReadingRefusedError, "naive_time"),
    ],
)
def test_function_that_gives_no_reading_is_refused(gives, error, says):
    with pytest.raises(error, match=says):
        CallbackSensor(lambda: gives).read(NOW)


def sampling(client, sensor, *, now=NOW, elapsed_s=0.0):
    return Sampler(client, sensor, SamplingSettings(), now=now, elapsed_s=elapsed_s)


def test_sampler_stores_readings_of_a_day_and_what_the_gauge_showed_between_them(tmp_path):
    machine = Machine(tmp_path, "phone")
    machine.say("battery", charge_full=2_700_000)
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db") as client:
        sampler = sampling(client, machine.sensor(client.store), elapsed_s=machine.elapsed_s)
        for minute in range(24 * 60):
            machine.elapsed_s += 60
            now = NOW + timedelta(minutes=minute)
            machine.say("battery", temp=250 + minute % 100)
            sampler.poll(now=now, elapsed_s=machine.elapsed_s)
        sampler.close()
        stored = client.store.telemetry()

        assert sampler.readings == len(stored.at_s)
        assert len(stored.at_s) in {4, 5}
        assert stored.values[-1][3] == pytest.approx(34.0, abs=1.0)
        assert stored.values[-1][6] == pytest.approx(6.0, abs=0.2)
        assert client.store.fact(FACT)["has_ended"] is True


def test_sampler_goes_on_where_the_last_process_ended(tmp_path):
    with new_store(tmp_path) as store:
        store.record(reading(NOW - timedelta(hours=2)), now=NOW)
    sensor = CallbackSensor(lambda: {"usage_hours": 1})
    with EdgeClient(tmp_path / "device.db") as client:
        assert last_reading_at(client) == NOW - timedelta(hours=2)
        sampler = sampling(client, sensor)

        assert sampler.wait_s(0.0) == 0.0
        assert sampler.poll(now=NOW, elapsed_s=0.0) is None
        assert sampler.poll(now=NOW, elapsed_s=4 * 3600.0 - 1) is None
        assert sampler.poll(now=NOW, elapsed_s=4 * 3600.0).usage_hours == 1


def test_failing_sensor_is_named_once_and_asked_again(tmp_path, caplog):
    answers = [{"usage_hours": 1}]
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db") as client, caplog.at_level(logging.WARNING):
        sampler = sampling(client, CallbackSensor(lambda: answers[1]))
        sampler.poll(now=NOW, elapsed_s=0.0)
        sampler.poll(now=NOW, elapsed_s=10.0)
        sampler.poll(now=NOW, elapsed_s=300.0)
        answers.append({"usage_hours": 2})
        made = sampler.poll(now=NOW, elapsed_s=600.0)

    assert (sampler.failures, made.usage_hours) == (2, 2)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "no reading, asked again",
        "the sensor gives readings again",
    ]


def test_reading_that_breaks_a_rule_is_counted_and_the_next_comes_in_time(tmp_path):
    new_store(tmp_path).close()
    given = iter([{"usage_hours": -1}, {"at": "2026-06-01T11:00:00"}, {"usage_hours": 1}])
    with EdgeClient(tmp_path / "device.db") as client:
        sampler = sampling(client, CallbackSensor(lambda: next(given)))
        for number in range(3):
            sampler.poll(now=NOW, elapsed_s=number * 2 * SIX_HOURS_S)

        assert client.store.refusals() == {"naive_time": 1, "out_of_range:usage_hours": 1}
        assert (sampler.refusals, sampler.readings) == (2, 1)


def test_value_beyond_its_range_is_left_out_and_the_reading_kept(tmp_path):
    machine = Machine(tmp_path, "charge_laptop")
    machine.say("BAT0", cycle_count=4_000_000, internal_resistance=1)
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db") as client:
        sampler = sampling(client, machine.sensor(client.store))
        sampler.poll(now=NOW, elapsed_s=0.0)
        machine.elapsed_s += 60 * 86_400
        made = sampler.poll(now=NOW, elapsed_s=60 * 86_400.0)

        assert (made.charge_cycle_count, made.internal_resistance_mohm) == (None, None)
        assert (made.usage_hours, made.full_charge_capacity_mah) == (None, 3651.0)
        assert client.store.refusals() == {}


def test_settings_make_a_sampler_or_none(tmp_path):
    new_store(tmp_path).close()
    path = tmp_path / "device.db"
    file = tmp_path / "life.csv"
    file.write_text("at,usage_hours\n2026-06-01T06:00:00Z,1\n")
    with EdgeClient(path) as client:
        none = sampler_of(DeviceConfig(store=path), client, now=NOW, elapsed_s=0.0)
        config = DeviceConfig(store=path, sensor=f"csv:{file}", sample_every_h=12)
        sampler = sampler_of(config, client, now=NOW, elapsed_s=0.0)

        assert none is None
        assert sampler.poll(now=NOW, elapsed_s=0.0).usage_hours == 1
        assert 6 * 3600 <= sampler._schedule.reading_at_s <= 18 * 3600


def test_end_on_a_disk_that_refuses_is_an_end(tmp_path, caplog):
    machine = Machine(tmp_path, "charge_laptop")
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db") as client:
        sampler = sampling(client, machine.sensor(client.store))
        sampler.poll(now=NOW, elapsed_s=0.0)
        client.store.rows("PRAGMA query_only = ON")
        sampler.close()

    assert "what the sensor saw last is not kept" in caplog.text


def test_interval_goes_on_where_the_store_could_not_take_its_reading(tmp_path):
    machine = Machine(tmp_path, "charge_laptop")
    new_store(tmp_path).close()
    with EdgeClient(tmp_path / "device.db") as client:
        sampler = sampling(client, machine.sensor(client.store), elapsed_s=100.0)
        sampler.poll(now=NOW, elapsed_s=100.0)
        machine.elapsed_s += SIX_HOURS_S
        client.store.rows("PRAGMA query_only = ON")
        with pytest.raises(StoreBusyError):
            sampler.poll(now=NOW, elapsed_s=100.0 + 2 * SIX_HOURS_S)
        assert sampler.poll(now=NOW, elapsed_s=101.0 + 2 * SIX_HOURS_S) is None
        client.store.rows("PRAGMA query_only = OFF")
        machine.elapsed_s += 360
        made = sampler.poll(now=NOW, elapsed_s=400.0 + 2 * SIX_HOURS_S)

        assert made.usage_hours == pytest.approx(6.1)
        assert client.store.num_readings() == 2


def test_gauge_without_a_capacity_says_so_once_in_the_log_and_in_the_store(tmp_path, caplog):
    with new_store(tmp_path) as store:
        sensor = Machine(tmp_path, "no_capacity").sensor(store, design_capacity_mah=3000.0)

        assert [sensor.read(NOW) for _ in range(3)] == 3 * [None]
        assert store.fact(FACT)["status"] == "no_full_charge_capacity"
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "no reading of axp20x-battery: no_full_charge_capacity (no rule gives one"
    )


def test_setting_names_a_sensor(tmp_path):
    new_store(tmp_path).close()
    file = tmp_path / "life.csv"
    file.write_text("at,usage_hours\n2026-06-01T06:00:00Z,1\n")
    with EdgeClient(tmp_path / "device.db") as client:
        assert sensor_of("none", client) is None
        assert isinstance(sensor_of(f"csv:{file}", client), CsvReplay)
        found = sensor_of("power_supply:BAT0", client, power_supplies=TREES / "energy_laptop")
        assert found.battery == "BAT0"
        with pytest.raises(UsageError, match="no sensor is called 'gauge'"):
            sensor_of("gauge", client)
