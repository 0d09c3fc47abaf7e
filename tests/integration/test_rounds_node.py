"""`fedcell-device node` against a real SuperLink: TLS, authenticated nodes, and a pin."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_client.cli import main
from models.wire.envelope import SigningKey
from tests.support.node_deployments import (
    NodeProcess,
    joined_device,
    lines_of,
    node_process,
    rounds_fleet,
    superlink,
    tiny_bundle,
    wait_for,
)
from tests.support.processes import processes_naming

KEY = SigningKey.generate()
KEYS = {KEY.verify_key.key_id: KEY.verify_key.to_bytes().hex()}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with rounds_fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture(scope="module")
def link(fleet, tmp_path_factory):
    with superlink(tmp_path_factory.mktemp("superlink"), fleet) as running:
        yield running


def status_of(store, capsys):
    assert main(["status", "--store", str(store), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["node"]


def ended(node):
    """Run a node that ends by itself, and return its exit code and its last line."""
    node.start()
    return node.process.wait(60), node.said.read_text().splitlines()[-1]


def test_a_node_runs_the_pinned_bundle_and_nothing_of_another(fleet, link, tmp_path, capsys):
    store = joined_device(tmp_path, fleet, "d-2", keys=KEYS, superlink=link.address)
    node_id = link.register(store)
    marker = tmp_path / "foreign-code-ran"
    # The app of the server loads the same module; only a client's process tells.
    only_clients = f"if 'clientapp' in __import__('sys').argv[0]: Path('{marker}').touch()"
    good, bad = tiny_bundle(), tiny_bundle(version="2.0.0", at_import=only_clients)
    pin = tmp_path / "pin.json"
    pin.write_bytes(good.pin(KEY, issued=datetime.now(UTC)))
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"

    with node_process(store, settings=f'[node]\napp-pin = "{pin}"\n') as node:
        logs = [node.said, node.flower_log, link.log]
        node.wait_for("connected")
        link.run(good, {"out": str(first)})
        wait_for(lambda: lines_of(first), what="the pinned bundle's run", logs=logs)
        link.run(bad, {"out": str(second)})
        wait_for(lambda: lines_of(second), what="the other's run", logs=logs)
        told = status_of(store, capsys)
        environment = _environment_of(node.process.pid)

    assert lines_of(first)[0]["replies"][0]["store"] == str(store)
    assert lines_of(second)[0]["replies"][0]["reason"] == "The FAB could not be verified."
    assert not marker.exists()
    assert (told["state"], told["node_id"]) == ("connected", str(node_id))
    assert told["refused"]["sha256"] == bad.sha256
    assert told["refused"]["pinned"] == good.sha256
    assert bad.sha256 in node.flower_log.read_text()
    assert node.process.returncode == 0
    assert not processes_naming(f"{store}.node"), "what it started ends with it"
    assert status_of(store, capsys)["state"] == "stopped"
    assert stat.S_IMODE((tmp_path / "d-2.db.node" / "flwr").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "d-2.db.node").stat().st_mode) == 0o700
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_HOME"] == str(tmp_path / "d-2.db.node" / "flwr")


def _environment_of(parent):
    """Return the environment of a node's first process of Flower's."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    entries = Path(f"/proc/{children[0]}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def test_who_answers_with_another_authority_is_told_nothing(fleet, link, tmp_path):
    with rounds_fleet(tmp_path / "other") as other:
        store = joined_device(tmp_path, other, "d-2", keys=KEYS, superlink=link.address)

        code, line = ended(NodeProcess(store))

    assert code == 5
    assert "is not known by an authority of the fleet" in line
    assert not (tmp_path / "d-2.db.node" / "flwr" / "trusted-entities.yaml").exists()


def test_an_absent_superlink_is_waited_for_until_the_node_is_stopped(fleet, tmp_path, capsys):
    store = joined_device(tmp_path, fleet, "d-3", keys=KEYS)

    with node_process(store, "--superlink", "127.0.0.1:1") as node:
        node.wait_for("waiting", seconds=20)
        told = status_of(store, capsys)
        assert node.stop() == 0

    assert node.events()[0]["reason"] == "unreachable"
    assert (told["state"], told["superlink"]) == ("waiting", "127.0.0.1:1")
    assert "no answer" in told["what"]


def test_a_device_has_one_node(fleet, tmp_path):
    store = joined_device(tmp_path, fleet, "d-4", keys=KEYS, superlink="127.0.0.1:1")

    with node_process(store) as node:
        node.wait_for("waiting", seconds=20)
        code, line = ended(NodeProcess(store))

    assert code == 6
    assert "a node of this device runs" in line


def test_what_is_missing_is_said(fleet, tmp_path):
    nowhere = joined_device(tmp_path / "a", fleet, "d-5", keys=KEYS)
    stranger = joined_device(tmp_path / "b", fleet, "d-6", keys=KEYS)
    (tmp_path / "b" / "d-6.db.fleet" / "fleet.json").unlink()

    assert ended(NodeProcess(nowhere)) == (
        3,
        "fedcell-device: superlink: is not named by the fleet; give --superlink HOST:PORT",
    )
    code, line = ended(NodeProcess(stranger))
    assert (code, "fedcell-device join" in line) == (5, True)
    code, line = ended(NodeProcess(nowhere, settings="[node]\nown-epsilom = 1\n"))
    assert (code, "unknown setting node.own-epsilom" in line) == (3, True)
