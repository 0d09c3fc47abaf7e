"""What dies around a node, for real: its SuperNode, its SuperExec, the SuperLink, and its key."""

import os
import signal
import time
from datetime import UTC, datetime

import pytest

from models.wire.envelope import SigningKey
from tests.support.node_deployments import (
    joined_device,
    lines_of,
    node_process,
    rounds_fleet,
    superlink,
    tiny_bundle,
    wait_for,
)
from tests.support.processes import processes_naming
from tests.support.whole_deployments import children_of

pytestmark = pytest.mark.soak

KEY = SigningKey.generate()
KEYS = {KEY.verify_key.key_id: KEY.verify_key.to_bytes().hex()}
BUNDLE = tiny_bundle()


@pytest.fixture
def site(tmp_path):
    """A SuperLink, and a device whose key it knows."""
    with (
        rounds_fleet(tmp_path / "fleet") as fleet,
        superlink(tmp_path / "superlink", fleet) as link,
    ):
        store = joined_device(tmp_path / "d", fleet, "d-2", keys=KEYS, superlink=link.address)
        pin = tmp_path / "pin.json"
        pin.write_bytes(BUNDLE.pin(KEY, issued=datetime.now(UTC)))
        yield link, store, pin


def is_answered(link, node, out):
    """Run the pinned bundle once more, and wait for its reply."""
    link.run(BUNDLE, {"out": str(out)})
    logs = [node.said, node.flower_log, link.log]
    wait_for(lambda: lines_of(out), what="a reply", logs=logs, seconds=180)
    return "pid" in lines_of(out)[0]["replies"][0]


def kill_child(node, name):
    os.kill(children_of(node.process.pid)[name], signal.SIGKILL)


def test_a_supernode_that_was_killed_waits_for_its_old_session_and_is_back(site, tmp_path):
    link, store, pin = site
    link.register(store)

    with node_process(store, "--app-pin", pin) as node:
        node.wait_for("connected", seconds=120)
        kill_child(node, "rounds_node.supernode")
        node.wait_for("connected", times=2, seconds=150)
        assert is_answered(link, node, tmp_path / "out.jsonl")

    reasons = [event["reason"] for event in node.events() if event["event"] == "waiting"]
    assert reasons == ["lost", "old_session"]
    assert node.process.returncode == 0


def test_a_command_that_was_killed_leaves_no_process_and_is_back_at_once(site, tmp_path):
    link, store, pin = site
    link.register(store)

    with node_process(store, "--app-pin", pin) as node:
        node.wait_for("connected", seconds=120)
        node.kill()
        wait_for(lambda: not processes_naming(f"{store}.node"), what="the end of all", seconds=60)
        began = time.monotonic()
        node.start()
        node.wait_for("connected", times=2, seconds=120)
        assert time.monotonic() - began < 45, "the session was signed off, so nothing is waited for"
        assert is_answered(link, node, tmp_path / "out.jsonl")


def test_a_superexec_that_was_killed_takes_its_supernode_along_and_both_are_back(site, tmp_path):
    """Flower's SuperNode would wait for ever for the reply of an app that was stopped."""
    link, store, pin = site
    link.register(store)

    with node_process(store, "--app-pin", pin) as node:
        node.wait_for("connected", seconds=120)
        before = children_of(node.process.pid)["rounds_node.supernode"]
        kill_child(node, "flower-superexec")
        node.wait_for("connected", times=2, seconds=120)
        assert is_answered(link, node, tmp_path / "out.jsonl")
        assert children_of(node.process.pid)["rounds_node.supernode"] != before


def test_a_superlink_that_was_killed_finds_its_node_again(site, tmp_path):
    link, store, pin = site
    link.register(store)

    with node_process(store, "--app-pin", pin) as node:
        node.wait_for("connected", seconds=120)
        link.kill()
        time.sleep(10)
        link.start()
        assert is_answered(link, node, tmp_path / "out.jsonl")


def test_a_node_whose_key_is_withdrawn_ends_and_says_what_to_do(site):
    link, store, pin = site
    node_id = link.register(store)

    with node_process(store, "--app-pin", pin) as node:
        node.wait_for("connected", seconds=120)
        link.unregister(node_id)
        code = node.process.wait(400)

    assert code == 5
    assert "not_authenticated" in [event.get("reason") for event in node.events()]
    assert "join URL --token T --anew" in node.said.read_text().splitlines()[-1]
