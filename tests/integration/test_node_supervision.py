"""A node beside stand-ins of Flower's processes: what they say and how they end decides.

The real processes are in test_rounds_node.py; here they end as real ones do on bad days.
"""

import json
import threading
from datetime import UTC, datetime
from random import Random

import pytest

from edge_client.errors import (
    FlowerError,
    NodeRefusedError,
    StoreBusyError,
    SuperLinkUnreachableError,
)
from edge_client.link.watchdog import Watchdog
from edge_client.rounds_node import node as node_module
from edge_client.rounds_node import processes
from edge_client.rounds_node.endings import REFUSED_FOR_S, Patience
from edge_client.rounds_node.node import DeviceNode, NodeInputs
from edge_client.rounds_node.node_folder import held_folder, read_state_of_node
from edge_client.rounds_node.pin_source import PinSource
from edge_client.store.erasure import erase_device
from tests.support.edge_devices import NOW, new_store

CHILD = """
import json, os, sys, time
with os.fdopen(int(sys.argv[2]), "w", buffering=1) as told:
    for event in json.loads({events!r}):
        told.write(json.dumps(event) + chr(10))
    time.sleep({lives_s})
    os._exit({code})
"""
CONNECTED = {"event": "connected", "node_id": "7"}
LISTENING = {"event": "listening"}
OLD_SESSION = {
    "event": "refused_connection",
    "code": 305,
    "what": "Failed.\n[code: 2004] Failed to activate SuperNode.",
}


class Clock:
    """Seconds that pass faster than real ones."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 10.0
        return self.now_s


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a node whose SuperNode says some things, and return what the node told."""
    store, told = tmp_path / "d.db", []
    (tmp_path / "supernode").write_text("key")
    monkeypatch.setattr(PinSource, "look", lambda _: None)
    monkeypatch.setattr(node_module, "TURN_S", 0.05)

    def start(events, *, code=0, lives_s=0.0, executor=("sleep", "60"), stops_after=1):
        child = CHILD.format(events=json.dumps(events), code=code, lives_s=lives_s)
        monkeypatch.setattr(processes, "SUPERNODE", ("-c", child))
        monkeypatch.setattr(
            node_module,
            "executor_process",
            lambda plan, *, log, parent: processes.started(
                list(executor), plan, log=log, is_told=True
            ),
        )
        with held_folder(store) as folder:

            def tell(event, facts):
                told.append((event, dict(facts)))
                if [name for name, _ in told].count("waiting") >= stops_after:
                    node.stop()

            node = DeviceNode(
                folder=folder,
                inputs=lambda: NodeInputs(
                    superlink="fleet:9443",
                    host="fleet",
                    port=9443,
                    authorities=tmp_path / "authorities.pem",
                    key=tmp_path / "supernode",
                    server_keys={},
                    pin_file=None,
                    values={"telemetry-db": str(store)},
                ),
                patience=Patience(superlink="fleet:9443", jitter=Random(1)),
                tell=tell,
                clock=lambda: datetime(2026, 11, 22, tzinfo=UTC),
                elapsed_s=Clock(),
                watchdog=Watchdog(),
            )
            start.node = node
            node.run()
        return told, read_state_of_node(store)

    start.store = store
    start.told = told
    return start


@pytest.mark.parametrize(
    ("events", "code", "reason"),
    [
        ([OLD_SESSION], 1, "old_session"),
        ([CONNECTED], 0, "not_authenticated"),
        ([CONNECTED, {"event": "stuck"}], 0, "stuck"),
        ([CONNECTED], 1, "lost"),
        ([], -9 % 256, "lost"),
    ],
)
def test_each_ending_is_told_and_waited_after(run, events, code, reason):
    told, state = run(events, code=code)

    assert told[-1][0] == "waiting"
    assert told[-1][1]["reason"] == reason
    assert ("unpinned", {}) in told
    assert (state.state, state.what) == ("stopped", "it was stopped")


def test_a_superexec_that_ended_takes_the_supernode_along(run):
    told, _ = run([LISTENING, CONNECTED], lives_s=60, executor=("true",))

    assert told[-1][1]["reason"] == "executor_lost"


@pytest.mark.parametrize(("events", "begins"), [([CONNECTED], False), ([LISTENING], True)])
def test_a_superexec_begins_once_its_supernode_listens(run, tmp_path, events, begins):
    run(
        events, lives_s=0.7, executor=("sh", "-c", f"read word && touch {tmp_path}/begun; sleep 60")
    )

    assert (tmp_path / "begun").exists() is begins


def stop_after(run, seconds):
    def stop():
        run.node.stop()

    threading.Timer(seconds, stop).start()


def test_a_node_that_is_stopped_ends_what_it_started(run):
    stop_after(run, 1.0)
    told, state = run([CONNECTED], lives_s=60)

    assert [name for name, _ in told] == ["unpinned", "connected"]
    assert (state.state, state.node_id) == ("stopped", "7")


def test_a_refused_bundle_stands_in_the_state_until_the_pinned_one_runs(run):
    refused = {"event": "refused", "sha256": "ab", "reason": "another_bundle", "pinned": "cd"}

    _, state = run([CONNECTED, refused])
    assert (state.refused.sha256, state.refused.pinned) == ("ab", "cd")

    _, state = run([CONNECTED, refused, {"event": "pinned", "sha256": "cd"}])
    assert state.refused is None


def test_a_key_that_is_refused_for_long_ends_the_node(run):
    with pytest.raises(NodeRefusedError):
        run([OLD_SESSION], code=1, stops_after=int(REFUSED_FOR_S))

    assert "does not know this device's key" in read_state_of_node(run.store).what


def test_a_flower_that_has_no_place_for_the_pin_ends_the_node(run):
    with pytest.raises(FlowerError, match="has no http_request_response") as raised:
        run([{"event": "flower_is_another", "what": "module has no http_request_response"}], code=3)

    assert raised.value.exit_code == 4


def test_a_superlink_that_does_not_answer_is_told_once(run, monkeypatch):
    def away(_):
        raise SuperLinkUnreachableError("fleet:9443", "no answer: refused", "check it")

    monkeypatch.setattr(PinSource, "look", away)
    stop_after(run, 1.0)
    told, _ = run([], stops_after=9)

    assert [name for name, _ in told] == ["waiting"]
    assert told[0][1]["reason"] == "unreachable"


def test_a_node_that_died_is_not_told_to_be_connected(run):
    run([CONNECTED])
    path = run.store.with_name("d.db.node") / "node.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"state": "connected"}))

    assert read_state_of_node(run.store).what == "it ended without saying so"
    with held_folder(run.store):
        assert read_state_of_node(run.store).state == "connected"
    path.write_text("{")
    assert read_state_of_node(run.store) is None


def test_a_store_is_not_erased_under_a_node_that_runs(tmp_path):
    with new_store(tmp_path) as store:
        path = store.path
    with held_folder(path), pytest.raises(StoreBusyError, match="stop the node first"):
        erase_device(path, now=NOW)

    assert path.exists()
    removed = erase_device(path, now=NOW)
    assert {path, path.with_name(path.name + ".node")} <= set(removed)
    assert not path.with_name(path.name + ".node").exists()
