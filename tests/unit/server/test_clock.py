from datetime import UTC, datetime, timedelta

import pytest

from server.clock import clock_from, clock_from_file, machine_clock, parse_time
from server.errors import SettingError

START = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Stopwatch:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def test_a_simulated_clock_begins_at_its_start_and_runs_on():
    stopwatch = Stopwatch()
    clock = clock_from(START, monotonic=stopwatch)

    first = clock()
    stopwatch.seconds += 90

    assert (first, clock()) == (START, START + timedelta(seconds=90))


def test_a_clock_follows_its_file(tmp_path):
    stopwatch, file = Stopwatch(), tmp_path / "clock"
    file.write_text("2026-06-01T12:00:00Z\n")
    clock = clock_from_file(file, monotonic=stopwatch)

    stopwatch.seconds += 5
    before = clock()
    file.write_text("2026-06-02T07:00:00+00:00")
    jumped = clock()
    stopwatch.seconds += 5

    assert before == START + timedelta(seconds=5)
    assert jumped == datetime(2026, 6, 2, 7, tzinfo=UTC)
    assert clock() == jumped + timedelta(seconds=5)


def test_a_clock_runs_on_while_its_file_is_replaced(tmp_path):
    stopwatch, file = Stopwatch(), tmp_path / "clock"
    file.write_text("2026-06-01T12:00:00Z")
    clock = clock_from_file(file, monotonic=stopwatch)

    file.write_text("")
    half_written = clock()
    file.unlink()

    assert (half_written, clock()) == (START, START)


@pytest.mark.parametrize("text", ["", "soon", "2026-06-01T12:00:00"])
def test_a_time_needs_a_zone(text):
    with pytest.raises(SettingError, match="write it like"):
        parse_time("clock", text)


def test_a_file_without_a_time_is_refused_at_the_start(tmp_path):
    with pytest.raises(SettingError, match="cannot be read"):
        clock_from_file(tmp_path / "clock")


def test_the_machines_clock_is_aware():
    assert machine_clock().utcoffset() == timedelta(0)
