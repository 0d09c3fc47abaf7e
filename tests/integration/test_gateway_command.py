"""`fedcell-device gateway`: what it says to a person and to a machine."""

import json

import pytest

from edge_client.cli import main
from edge_client.gateway.record import (
    Answered,
    StepTold,
    gateway_folder,
    tell_step,
    write_answered,
)
from tests.support.brokers import mosquitto_in
from tests.support.gateway_sites import gateway_on_disk

ARTEFACT_REFUSED, OUTSIDE, MISSING = 5, 6, 4


@pytest.fixture
def gateway(tmp_path):
    made = gateway_on_disk(tmp_path / "gateway", ("127.0.0.1", 1), num_devices=3)
    write_config(made)
    return made


def write_config(made, port=1):
    (made.folder / "device.toml").write_text(
        f'store = "{made.folder / "gateway.db"}"\n'
        f'hardware_id_file = "{made.folder / "machine-id"}"\n'
        f'server_key = "{made.folder / "server.json"}"\n'
        f'[node]\ngateway-site = "site.json"\ngateway-broker = "127.0.0.1:{port}"\n'
    )


def run(made, *words):
    return main(["gateway", *words, "--config", str(made.folder / "device.toml")])


@pytest.mark.broker
def test_check_connects_and_says_that_nothing_secures_it(gateway, tmp_path, capsys):
    with mosquitto_in(tmp_path) as broker:
        write_config(gateway, broker.port)
        assert run(gateway, "check", "--json") == 0
        said = json.loads(capsys.readouterr().out)
        assert run(gateway, "check") == 0
        assert "IN THE CLEAR" in capsys.readouterr().out

    assert said["gateway"] == "gateway-1"
    assert (said["devices"], said["most_devices"], said["tls"], said["may_say"]) == (
        3,
        3,
        False,
        True,
    )


def test_check_says_in_one_line_what_is_missing(gateway, capsys):
    assert run(gateway, "check") == OUTSIDE
    gateway.write_site(gateway.devices().site_devices(), gateway="gateway-2")
    assert run(gateway, "check") == ARTEFACT_REFUSED
    (gateway.folder / "site.json").unlink()
    assert run(gateway, "check") == MISSING
    lines = capsys.readouterr().err.splitlines()

    assert len(lines) == 3
    assert "127.0.0.1:1" in lines[0]
    assert "fedcell fleet gateway" in lines[1]
    assert "no such file" in lines[2]


def test_status_tells_who_was_silent_and_what_was_refused(gateway, capsys):
    assert run(gateway, "status") == 0
    assert "no step" in capsys.readouterr().out
    folder = gateway_folder(gateway.folder / "gateway.db")
    told = StepTold(
        kind="update",
        stream="run-1",
        index=4,
        at="2026-11-01T00:00:00+00:00",
        seconds=12.0,
        invited=10,
        answered=3,
        refused={"bad_signature": 2},
        silent=tuple(f"meter-{number}" for number in range(7)),
    )
    tell_step(folder, "gateway-1", told)
    write_answered(folder, Answered().with_answer("update/run-1", 4))
    assert run(gateway, "status") == 0
    said = capsys.readouterr().out
    assert run(gateway, "status", "--json") == 0
    data = json.loads(capsys.readouterr().out)

    assert "update 4 of run-1: 3 of 10 devices in 12.0 s" in said
    assert "meter-0, meter-1, meter-2, meter-3, meter-4 and 2 more" in said
    assert "refused 2: bad_signature" in said
    assert data["answered"] == {"update/run-1": 4}
    assert data["steps"][0]["silent"][-1] == "meter-6"
