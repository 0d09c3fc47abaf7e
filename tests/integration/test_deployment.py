"""A deployment as an operator brings it up: one folder, one process, nodes through the proxy."""

import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from models.wire.app_pin import APP_PIN_PATH, AppPin
from models.wire.envelope import trusted_keys
from server.authority.enrolment import revoke
from server.deployment.app_bundle import PACKAGES
from server.deployment.beginning import begin_run
from server.deployment.certificates import require_certificates
from server.deployment.control_api import control_api
from server.deployment.errors import DeploymentRefusedError, ServingError
from server.deployment.flower_commands import Part
from server.deployment.folder import open_deployment
from server.deployment.node_registry import bound_devices
from server.deployment.nodes import enrolled_nodes
from server.deployment.pinned_superexec import SERVERAPP
from server.deployment.proxy_configuration import NODE_PATHS
from server.deployment.readiness import taken_port
from server.deployment.serving import Supervisor
from server.signer import load_signer
from server.storage.sites import KeptGateway, Sites
from tests.support.command_line import fedcell
from tests.support.deployments import deployed_fleet, serving
from tests.support.node_deployments import (
    HOST,
    joined_device,
    lines_of,
    node_process,
    tiny_bundle,
    wait_for,
)
from tests.support.processes import processes_naming
from tests.support.secured_fleets import DeviceOnPaper, secured_fleet

pytestmark = [pytest.mark.nginx, pytest.mark.slow]

DEVICES = ("d-2", "d-5")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A fleet whose deployment is written, with a small app in the place of the whole one."""
    with deployed_fleet(tmp_path_factory.mktemp("rounds")) as made:
        written = made.write()
        assert written.code == 0, written.err
        yield made


@pytest.fixture(scope="module")
def served(deployed):
    """It is served, and the nodes of two devices are started."""
    deployed.pin(tiny_bundle())
    address = f"{HOST}:{deployed.port}"
    stores = {
        name: joined_device(
            deployed.folder / name,
            deployed.fleet,
            name,
            keys=deployed.server_keys,
            superlink=address,
        )
        for name in DEVICES
    }
    with ExitStack() as running:
        process = running.enter_context(serving(deployed.directory))
        process.nodes = {
            name: running.enter_context(node_process(store)) for name, store in stores.items()
        }
        for node in process.nodes.values():
            node.wait_for("connected", seconds=180)
        yield process


def test_folder_is_private_and_written_again_changes_nothing(deployed):
    files = [path for path in deployed.directory.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    secret = {"key.pem", "inner.key", "superexec.secret", "stream.operator", "deployment.json"}

    again = deployed.write()

    assert again.json()["made"] == []
    assert {path: path.read_bytes() for path in files} == before
    assert stat.S_IMODE(deployed.directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert {name: modes[name] for name in secret} == dict.fromkeys(secret, 0o600)


def test_certificate_that_is_over_is_named(deployed):
    now = datetime.now(UTC)

    assert require_certificates(deployed.place, now=now) > now + timedelta(days=300)
    with pytest.raises(DeploymentRefusedError, match=r"certificate\.pem: ended on .*deployment"):
        require_certificates(deployed.place, now=now + timedelta(days=400))


def test_taken_port_is_found(deployed):
    place = deployed.place

    assert taken_port(place, with_proxy=True) is None
    with socket.socket() as other:
        other.bind((HOST, place.port))
        other.listen()
        assert taken_port(place, with_proxy=True) == place.port
        assert taken_port(place, with_proxy=False) is None


def test_key_that_devices_do_not_trust_is_refused(deployed, tmp_path):
    fedcell("server", "key", "--out", tmp_path / "other.pem")

    refused = deployed.write("--policy-key", tmp_path / "other.pem")

    assert refused.is_refused(5, "other.pem", "do not trust this key", "fleet init --server-key")


@pytest.fixture
def copy(deployed, tmp_path):
    """A copy of the folder, to be damaged."""
    return shutil.copytree(deployed.directory, tmp_path / "copy")


def test_gateway_speaks_for_the_devices_of_its_site(tmp_path):
    now = datetime.now(UTC)
    with secured_fleet(tmp_path, now=now) as fleet:
        for name in ("gate", "small", "alone", "gone"):
            fleet.enrol(DeviceOnPaper(name), now=now)
        with fleet.database.transaction() as connection:
            gateway = KeptGateway(
                gateway_id="gate",
                most_devices=5,
                issued_at=now,
                not_after=now + timedelta(days=1),
                credential_digest="0" * 64,
            )
            Sites(connection).keep(gateway, ["small", "gone"])
            revoke(connection, "gone", because="", now=now)
        with fleet.database.reading() as connection:
            found = enrolled_nodes(connection)

    assert sorted(found.keys) == ["alone", "gate", "small"]
    assert found.gateways == {"small": "gate"}
    assert [one.device_id for one in bound_devices(found.keys, [], found.gateways)] == [
        "alone",
        "small",
    ]


def test_unit_file_is_written_for_the_deployment(deployed, tmp_path):
    written = fedcell("rounds", "unit", deployed.directory, "--out", tmp_path, "--json")

    text = (tmp_path / "fedcell-rounds.service").read_text()
    assert written.json() == {"file": str(tmp_path / "fedcell-rounds.service")}
    assert f"rounds serve --json {deployed.directory}\n" in text


def test_folder_that_is_not_there_is_named(tmp_path):
    refused = fedcell("rounds", "serve", tmp_path / "none")

    assert refused.is_refused(4, "there is no deployment", "fedcell rounds deployment")


def test_damaged_folder_is_named(copy):
    (copy / "superexec.secret").unlink()
    assert fedcell("rounds", "serve", copy).is_refused(3, "superexec.secret", "is missing")

    (copy / "deployment.json").write_text('{"format": 1, "hosts": []}')
    assert fedcell("rounds", "serve", copy).is_refused(3, "deployment.json", "is damaged")


def test_missing_proxy_is_named_with_what_installs_it(copy, monkeypatch):
    monkeypatch.setenv("PATH", str(copy))
    monkeypatch.setattr("server.deployment.whole._SERVER_PROGRAMS", str(copy))

    assert fedcell("rounds", "serve", copy).is_refused(4, "nginx", "apt-get install")


@pytest.mark.parametrize("name", ["superlink", "superexec"])
def test_part_that_ends_before_it_was_ready_ends_the_whole_with_its_last_words(copy, name):
    log = copy / "logs" / f"{name}.log"
    half_an_app = copy / "flwr" / "apps" / "fedcell"
    half_an_app.mkdir(parents=True)
    words = ("/bin/sh", "-c", "echo wrong certificate >&2; exit 7")
    events = []
    supervisor = Supervisor(
        deployment=open_deployment(copy),
        parts=[Part(name, words, log)],
        environment=os.environ,
        tell=events.append,
        is_stopped=lambda: False,
    )

    with pytest.raises(ServingError, match=r"code 7\): wrong certificate"):
        supervisor.run()

    assert [event["event"] for event in events] == ["part_started", "part_ended", "stopped"]
    assert half_an_app.exists() is (name != "superexec")


def test_serverapp_loads_no_module_of_the_installation_before_those_of_its_bundle():
    words = [sys.executable, "-P", "-X", "importtime", SERVERAPP, "00", "--help"]

    ran = subprocess.run(words, input="", capture_output=True, text=True, timeout=120, check=True)

    loaded = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "usage: flwr-serverapp" in ran.stdout
    assert "flwr.superlink.runtime.run_serverapp" in loaded
    assert {name.partition(".")[0] for name in loaded}.isdisjoint(PACKAGES)


def test_what_a_killed_process_had_started_ends_too():
    program = (
        "import subprocess, sys, os, time;"
        "words = [sys.executable, '-m', 'server.deployment.tethered', str(os.getpid())];"
        "subprocess.Popen([*words, '/bin/sleep', '987']); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: processes_naming("sleep\x00987"), what="the child")

    parent.kill()
    parent.wait()

    wait_for(lambda: not processes_naming("sleep\x00987"), what="its end")


def test_nodes_pass_the_proxy_and_are_bound_to_their_devices(deployed, served):
    listed = fedcell("rounds", "nodes", deployed.directory, "--json").json()

    assert [(one["device_id"], one["state"]) for one in listed["nodes"]] == [
        (name, "online") for name in DEVICES
    ]
    rows = deployed.place.enrolled.read_text().splitlines()
    assert rows == ["device_id,node_id"] + [
        f"{one['device_id']},{one['node_id']}" for one in listed["nodes"]
    ]
    told = [str(node.events()[-1]["node_id"]) for node in served.nodes.values()]
    assert told == [one["node_id"] for one in listed["nodes"]]


def test_processes_are_told_to_phone_nobody_and_to_install_nothing(served):
    for part in ("superlink", "superexec"):
        told = Path(f"/proc/{served.pid(part)}/environ").read_bytes().split(b"\0")
        assert {
            b"FLWR_TELEMETRY_ENABLED=0",
            b"FLWR_DISABLE_UPDATE_CHECK=1",
            b"FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1",
        } <= set(told)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_proxy_refuses_operators_apps_and_strangers(deployed, served):
    place = deployed.place
    context = ssl.create_default_context(cafile=str(place.authorities))
    base = f"https://{HOST}:{place.port}"
    with httpx.Client(verify=context) as client:
        refused = {
            path: client.post(base + path, content=b"").status_code
            for path in (
                "/v1/control/start-run",
                "/v1/control/register-node",
                "/v1/control/list-nodes",
                "/v1/runtime/acquire-task",
                "/v1/fleet/register-node",
                "/v1/fleet/unregister-node",
                "/v1/fleet/pull-messages/",
                "/v1/fleet/pull-messages/..%2f..%2fcontrol/list-nodes",
                "/v1/fleet/../control/list-nodes",
                "//v1/control/list-nodes",
                "/docs",
                "/openapi.json",
                "/health",
            )
        }
        assert refused == dict.fromkeys(refused, 403)
        assert client.get(base + NODE_PATHS[0]).status_code == 403
        # A path of nodes gets as far as the SuperLink, which knows nodes by their keys.
        stranger = client.post(
            base + NODE_PATHS[0], content=b"", headers={"content-type": "application/protobuf"}
        )
        assert stranger.status_code in {401, 415, 422}
        assert client.post(base + NODE_PATHS[3], content=b"x" * 5_000_000).status_code == 413
        pin = client.get(base + APP_PIN_PATH)
    key = load_signer(deployed.key).verify_key
    assert AppPin.from_envelope(pin.content, trusted_keys(key)).fab_sha256 == tiny_bundle().sha256
    old = ssl.create_default_context(cafile=str(place.authorities))
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((HOST, place.port)) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname=HOST)


def test_second_process_is_kept_from_serving(deployed, served):
    refused = fedcell("rounds", "serve", deployed.directory)

    assert refused.is_refused(6, str(deployed.directory), "another process serves")


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["rounds=many"], 2, "rounds: must be a whole number"),
        (["colour=red"], 2, "colour: is no key of a run"),
        (["policy-key=other.pem"], 2, "nodes believe no other"),
        (["start-weights=/nowhere.npz"], 1, "holds no weights"),
        (["start-weights=default", "plan=/nowhere.json"], 3, "nowhere.json"),
        (["start-weights=default", "optimizer=sgd"], 1, "optimizer is 'sgd'"),
        (["start-weights=default", "owners=/nowhere.csv"], 2, "nowhere.csv"),
    ],
)
def test_run_that_could_not_go_well_is_not_begun(deployed, served, words, code, what):
    refused = fedcell("rounds", "begin", deployed.directory, *words)

    assert (refused.code, refused.out) == (code, ""), refused.err
    assert what in refused.err
    assert not any(deployed.place.begun.iterdir())


def test_run_goes_on_over_a_superlink_that_is_killed(deployed, served):
    place, out = deployed.place, deployed.folder / "asked.jsonl"
    said = {"out": str(out), "asks": 1, "timeout-s": 180.0}
    with control_api(place) as api:
        begun = begin_run(api, place, said, number=1, now=datetime.now(UTC))
    # Messages are out, and answers on their way.
    served.nodes["d-2"].wait_for("pinned", seconds=180)
    assert not out.exists()

    os.kill(served.pid("superlink"), signal.SIGKILL)
    served.wait_for("part_ready", "superlink", times=2)

    with control_api(place) as api:
        wait_for(lambda: api.run(begun.run_id).is_over, what="the run", seconds=180)
        stands = api.run(begun.run_id)
    assert stands.sub_status == "completed", stands.details
    replies = [reply for kept in lines_of(out) for reply in kept["replies"]]
    assert [sorted(reply) for reply in replies] == [["pid", "store"]] * 2, replies
    (death,) = served.events("part_ended", "superlink")
    assert (death["code"], death["again_in_s"]) == (-9, 1.0)


def test_who_reaches_the_control_api_has_nothing_of_his_own_executed(deployed, served):
    loot = deployed.folder / "loot"
    other = tiny_bundle(version="6.6.6", at_import=f"Path({str(loot)!r}).touch()")
    log = deployed.directory / "logs" / "superexec.log"

    with control_api(deployed.place) as api:
        run_id = api.start_run(other.content, sha256=other.sha256, said={})
        what = f"bundle {other.sha256} is not the pinned bundle"
        wait_for(lambda: loot.exists() or what in log.read_text(), what="an answer", seconds=60)
        api.stop_run(run_id)

    assert not loot.exists()
    assert what in log.read_text()


def test_proxy_that_is_killed_is_started_again(served):
    os.kill(served.pid("proxy"), signal.SIGKILL)
    served.wait_for("part_ready", "proxy", times=2)

    assert [death["code"] for death in served.events("part_ended", "proxy")] == [-9]


def test_revoked_device_is_shut_out(deployed, served):
    revoked = fedcell("fleet", "revoke", "d-5", *deployed.places)
    assert revoked.code == 0, revoked.err

    wait_for(
        lambda: [event for event in served.events("nodes_changed") if event["unregistered"]],
        what="the node to be shut out",
        logs=[served.said],
    )

    listed = fedcell("rounds", "nodes", deployed.directory, "--json").json()
    assert [one["device_id"] for one in listed["nodes"]] == ["d-2"]
    assert deployed.place.enrolled.read_text().count("\n") == 2


def test_process_that_is_asked_to_end_leaves_nothing_behind(deployed, served):
    assert processes_naming(str(deployed.directory))
    begun = time.monotonic()

    assert served.stop() == 0

    assert time.monotonic() - begun < 30
    assert served.events("stopped")
    ended = {str(one["part"]): one["code"] for one in served.events("part_stopped")}
    # uvicorn ends by the signal that it has handled.
    assert ended == {"superexec": 0, "proxy": 0, "superlink": -signal.SIGTERM}
    assert processes_naming(str(deployed.directory)) == []
    last = json.loads(served.said.read_text().splitlines()[-1])
    assert last["event"] == "stopped"
