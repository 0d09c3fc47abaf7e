"""What a store keeps of a step behind a gateway: sealed with the rest, and shown as sealed."""

import base64

import pytest

from edge_client.cli import run
from edge_client.site_rounds.kept_step import StepState, kept_step
from edge_client.site_rounds.receiver import put_out_again
from edge_client.telemetry_store import TelemetryStore
from tests.support.edge_devices import NOW
from tests.support.site_devices import site_store
from tests.support.site_power_cut import Gateway, live

KEY = bytes(range(100, 132))


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(KEY)
    file.chmod(0o600)
    return file


def test_sealed_store_takes_part_and_keeps_its_step_sealed(tmp_path, key_file):
    path, said = site_store(tmp_path / "device", key=lambda: KEY), []
    live(path, Gateway(None), said.append, key_file=key_file)

    answer = Gateway(None).opened_from(Gateway(None).offer_of(), path, said)
    assert answer.values.any()
    with TelemetryStore(path, key=lambda: KEY) as store:
        kept = kept_step(store)
        (raw,) = store.rows("SELECT value FROM fact WHERE name = 'site_round'")[0]
    assert (kept.state, kept.parts) == (StepState.ANSWERED, tuple(said))
    written = raw if isinstance(raw, bytes) else raw.encode()
    assert base64.b64encode(said[0]) not in written
    assert b"gateway-1" not in written


def test_outbox_shows_what_it_cannot_read_by_its_size(tmp_path, capsys):
    path = site_store(tmp_path / "device")
    live(path, Gateway(None), lambda _part: None)
    with TelemetryStore(path) as store:
        put_out_again(store, kept_step(store), [0, 3])
    assert run(["outbox", "--store", str(path), "--now", NOW.isoformat()]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "contribution" in line]
    assert [line.split("  ")[-1] for line in shown] == [
        "4096 bytes, sealed to another",
        f"{len(kept_parts(path)[3])} bytes, sealed to another",
    ]


def kept_parts(path):
    with TelemetryStore(path) as store:
        return kept_step(store).parts
