import json
from datetime import UTC, datetime

import pytest

from edge_client.errors import InputError, InputMissingError, ReadingRefusedError
from edge_client.sensors import reading_of, readings_in

NOON = {"at": "2026-06-01T12:00:00Z"}


def test_named_fields_become_a_reading():
    made = reading_of(
        NOON | {"battery_temp_max_c": "31.5", "charge_cycle_count": 12, "usage_hours": ""},
        where="here",
    )
    assert made.at == datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert made.battery_temp_max_c == 31.5
    assert made.charge_cycle_count == 12.0
    assert made.usage_hours is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (NOON | {"temperature": 3}, "unknown field temperature"),
        (NOON | {"usage_hours": "much"}, "usage_hours is no number: 'much'"),
        (NOON | {"usage_hours": True}, "usage_hours is no number: True"),
        (NOON | {"usage_hours": [1]}, r"usage_hours is no number: \[1\]"),
        (NOON | {"usage_hours": 10**400}, "usage_hours is no number"),
        ({"usage_hours": 1}, "at is no time: None"),
        ({"at": "yesterday"}, "at is no time: 'yesterday'"),
        ({"at": 1_780_000_000}, "at is no time: 1780000000"),
        (NOON | {"device_id": "other"}, "reading of device 'other'"),
    ],
)
def test_wrong_field_is_named_with_its_place(fields, says):
    with pytest.raises(InputError, match=says) as refused:
        reading_of(fields, where="file.csv:7", device_id="mine")
    assert refused.value.where == "file.csv:7"


def test_time_without_zone_is_a_counted_refusal():
    refused = reading_of({"at": "2026-06-01T12:00:00", "usage_hours": 1}, where="here")
    assert isinstance(refused, ReadingRefusedError)
    assert refused.reason == "naive_time"


def test_csv_and_json_lines_say_the_same(tmp_path):
    table = tmp_path / "r.csv"
    table.write_text(
        "device_id,at,usage_hours,battery_temp_max_c\n"
        "d,2026-06-01T12:00:00Z,1.5,\n"
        "d,2026-06-01T18:00:00+02:00,,30\n"
    )
    lines = tmp_path / "r.jsonl"
    lines.write_text(
        json.dumps(NOON | {"usage_hours": 1.5})
        + "\n\n"
        + json.dumps({"at": "2026-06-01T18:00:00+02:00", "battery_temp_max_c": 30})
        + "\n"
    )
    assert list(readings_in(table, device_id="d")) == list(readings_in(lines, device_id="d"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.csv", b"", "holds no reading"),
        ("r.csv", b"at,usage_hours\n", "holds no reading"),
        ("r.jsonl", b"", "holds no reading"),
        ("r.jsonl", b"[1]\n", "r.jsonl:1: is a JSON list"),
        ("r.jsonl", b'{"at": \n', "r.jsonl:1: is no JSON"),
        ("r.csv", b"at,usage_hours\n2026-06-01T12:00:00Z,1,2\n", "more values than columns"),
        ("r.csv", b"at,usage_hours\n2026-06-01T12:00:00Z," + b"1" * 200_000, "r.csv:2: is no CSV"),
        ("r.csv", b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_unusable_file_is_named(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        list(readings_in(path))


def test_missing_file_is_a_missing_part(tmp_path):
    with pytest.raises(InputMissingError, match=r"none\.csv: there is no such file") as missing:
        list(readings_in(tmp_path / "none.csv"))
    assert missing.value.exit_code == 4
