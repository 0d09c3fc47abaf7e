"""What makes a machine a gateway, and what it remembers."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from edge_client.errors import EdgeError, GatewayError, InputError, InputMissingError
from edge_client.gateway.record import (
    MOST_STEPS_TOLD,
    Answered,
    StepTold,
    read_answered,
    read_status,
    tell_step,
    write_answered,
)
from tests.support.gateway_sites import gateway_on_disk


@pytest.fixture
def gateway(tmp_path):
    return gateway_on_disk(tmp_path / "gateway", ("127.0.0.1", 1883), num_devices=3)


def test_a_gateway_stands_for_the_devices_of_its_site_file(gateway):
    block = gateway.block()

    assert block.device_ids == ("meter-0000", "meter-0001", "meter-0002")
    assert (block.site.host, block.site.port, block.site.deadline_s) == ("127.0.0.1", 1883, 20.0)
    assert block.site.link_settings().client_id == "gateway-1"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"gateway-site": "/nowhere/site.json"}, InputMissingError, "no such file"),
        ({"gateway-site": ""}, InputMissingError, "gateway-site"),
        ({"telemetry-db": ""}, InputMissingError, "telemetry-db"),
        ({"telemetry-db": "/nowhere/else.db"}, InputMissingError, "no keys"),
        ({"policy-keys": ""}, InputMissingError, "no key may sign"),
        ({"gateway-broker": "nowhere"}, InputError, "no address"),
        ({"gateway-deadline-s": -1}, InputError, "gateway-deadline-s"),
    ],
)
def test_a_configuration_that_names_no_gateway_is_refused_in_one_line(
    gateway, changes, kind, words
):
    with pytest.raises(kind, match=words) as caught:
        gateway.block(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gateway": "gateway-2"}, "gateway-2"),
        ({"verify_key": "0" * 64}, "other keys"),
        ({"seal_key": "0" * 64}, "other keys"),
        ({"site_digest": "0" * 64}, "wrong_site"),
        ({"most_devices": 2}, "wrong_site"),
    ],
)
def test_a_site_file_of_another_gateway_or_site_is_refused(gateway, changes, words):
    gateway.write_site(gateway.devices().site_devices(), **changes)
    with pytest.raises(GatewayError, match=words):
        gateway.block()


def test_a_site_file_that_is_over_or_of_another_server_is_refused(gateway):
    with pytest.raises(GatewayError, match="expired"):
        gateway.block(now=datetime.now(UTC) + timedelta(days=91))
    (gateway.folder / "server.json").write_text(json.dumps({"0" * 16: "11" * 32}))
    with pytest.raises(GatewayError, match="unknown_key"):
        gateway.block()


def test_a_copy_of_a_gateway_on_other_hardware_is_refused(gateway):
    (gateway.folder / "machine-id").write_text("another machine")
    with pytest.raises(EdgeError, match="copy"):
        gateway.block()


def test_what_was_answered_is_remembered_for_life(tmp_path):
    folder = tmp_path / "gateway.db.gateway"
    assert read_answered(folder) == Answered()
    kept = Answered(stream="run-1", index=4, offered_to=("a", "b"), retained_parts=3)
    write_answered(folder, kept.with_answer("update/run-1", 4))
    found = read_answered(folder)

    assert found == kept.with_answer("update/run-1", 4)
    assert [found.has_answered("update/run-1", index) for index in (3, 4, 5)] == [True, True, False]
    assert not found.has_answered("update/run-2", 0)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b'{"format": 9}', b"{"])
def test_a_damaged_record_lets_nothing_be_answered(tmp_path, content):
    (tmp_path / "answered.json").write_bytes(content)
    with pytest.raises(GatewayError):
        read_answered(tmp_path)


def test_status_tells_the_last_steps(tmp_path):
    folder = tmp_path / "record"
    assert read_status(folder) == {}
    for index in range(MOST_STEPS_TOLD + 2):
        told = StepTold(
            kind="update",
            stream="s",
            index=index,
            at="2026-11-01T00:00:00+00:00",
            seconds=1.23456,
            invited=3,
            answered=2,
            refused={"bad_signature": 1},
            silent=("meter-1",),
        )
        tell_step(folder, "gateway-1", told)
    steps = read_status(folder)["steps"]

    assert [step["index"] for step in steps] == list(range(2, MOST_STEPS_TOLD + 2))
    assert steps[-1]["seconds"] == 1.235
    (folder / "status.json").write_bytes(b"{")
    assert read_status(folder) == {}
