"""The seams in Flower's SuperExec and ServerApp: what is not pinned is not run.

Flower's own functions carry out each test, so that another version of Flower that starts or loads
apps in another way fails here.
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from flwr.app import Context, RecordDict
from flwr.common.serde import context_to_proto, fab_to_proto, run_to_proto
from flwr.proto.runtime_pb2 import AcquireTaskResponse, PullTaskInputResponse
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run

import server.deployment.pinned_superexec as seam
from server.deployment.errors import DeploymentRefusedError
from server.deployment.pinned_serverapp import FLOWER_APP, PinnedApp, put_before_flower
from server.deployment.pinned_superexec import FLOWER_LOOP, PinnedExecutor, give_flower
from tests.support.node_deployments import tiny_bundle

GOOD = tiny_bundle()
TOKEN = "ab" * 16


class StoppedError(Exception):
    """The SuperLink hands out no more tasks."""


class SuperLinkOfOneTask:
    """Hands out one task to Flower's loop, and ends it."""

    def __init__(self, **task):
        self.task, self.asked_for = Task(task_id=3, run_id=7, **task), None

    def AcquireTask(self, request):  # noqa: N802 - Flower's name
        if self.asked_for is not None:
            raise StoppedError
        self.asked_for = list(request.supported_task_types)
        return AcquireTaskResponse(task=self.task, token=TOKEN)

    def close(self):
        """Flower closes what it asked."""


@pytest.fixture
def loop(monkeypatch):
    """Flower's loop of SuperExec, which talks to a SuperLink of the test."""
    from importlib import import_module

    found = import_module(FLOWER_LOOP)
    monkeypatch.setattr(found, "get_executor", found.get_executor)
    monkeypatch.setattr(found, "register_signal_handlers", lambda **_: None)
    monkeypatch.setattr(found, "validate_and_resolve_root_certificates", lambda *_: b"")
    monkeypatch.setenv("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.01")
    return found


@pytest.fixture
def started(monkeypatch):
    """Command lines of the processes that are started by whoever starts one."""
    lines = []

    class Process:
        def __init__(self, words, **named):
            self.stdin = SimpleNamespace(write=lines.append, close=lambda: None)
            lines.append((words, named))

        def poll(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    return lines


def handed_out(loop, monkeypatch, superlink, *, pinned=lambda: GOOD.content, insecure=False):
    monkeypatch.setattr(
        loop, "RuntimeHttpClient", SimpleNamespace(from_server_address=lambda **_: superlink)
    )
    give_flower(PinnedExecutor(pinned, {"PATH": "/bin"}))
    with pytest.raises(StoppedError):
        loop.run_superexec(
            "127.0.0.1:1", insecure=insecure, root_certificates_path=None if insecure else "ca.pem"
        )


def test_serverapp_of_the_pinned_bundle_is_started_and_its_token_is_in_no_command_line(
    loop, started, monkeypatch
):
    superlink = SuperLinkOfOneTask(type=TaskType.SERVER_APP, fab_hash=GOOD.sha256)

    handed_out(loop, monkeypatch, superlink)

    (words, named), token = started
    assert words[:4] == (sys.executable, "-P", str(seam.SERVERAPP), GOOD.sha256)
    assert words[-2:] == ("--parent-pid", str(os.getpid()))
    assert (token, TOKEN in " ".join(words)) == (TOKEN.encode() + b"\n", False)
    assert named["env"] == {"PATH": "/bin"}
    assert superlink.asked_for == [TaskType.SERVER_APP]


@pytest.mark.parametrize(
    "task",
    [
        {"type": TaskType.SERVER_APP, "fab_hash": tiny_bundle(version="6.6.6").sha256},
        {"type": TaskType.SERVER_APP},
        {"type": TaskType.SERVER_APP, "fab_hash": GOOD.sha256.upper()},
        *({"type": kind, "fab_hash": GOOD.sha256} for kind in TaskType if kind != "flwr-serverapp"),
    ],
)
def test_nothing_else_is_started(loop, started, monkeypatch, task):
    handed_out(loop, monkeypatch, SuperLinkOfOneTask(**task))

    assert started == []


def test_nothing_is_started_where_no_pin_can_be_read_or_the_superlink_is_not_known(
    loop, started, monkeypatch
):
    def none():
        raise DeploymentRefusedError("app-pin.json", "is not signed", "write it anew")

    task = {"type": TaskType.SERVER_APP, "fab_hash": GOOD.sha256}

    handed_out(loop, monkeypatch, SuperLinkOfOneTask(**task), pinned=none)
    handed_out(loop, monkeypatch, SuperLinkOfOneTask(**task), insecure=True)

    assert started == []


def test_flower_that_chooses_its_executors_elsewhere_is_not_started(loop, monkeypatch):
    monkeypatch.delattr(loop, "get_executor")

    with pytest.raises(SystemExit, match=r"has no get_executor: pip install 'flwr==1\.41"):
        give_flower(PinnedExecutor(lambda: b"", {}))


class Grid:
    """A ServerApp's way to its SuperLink, which hands out one bundle."""

    def __init__(self, bundle, said):
        self.bundle, self.said = bundle, said
        self._runtime_client, self._retry_invoker = self, SimpleNamespace(max_tries=None)

    def PullTaskInput(self, _):  # noqa: N802 - Flower's name
        run = Run.create_empty(run_id=7)
        run.fab_id, run.fab_version, run.fab_hash = "fedcell/tiny", "1.0.0", GOOD.sha256
        return PullTaskInputResponse(
            context=context_to_proto(Context(7, 1, {}, RecordDict(), {})),
            run=run_to_proto(run),
            # It lies about the hash.
            fab=fab_to_proto(Fab(GOOD.sha256, self.bundle.content, {})),
        )

    def set_run(self, run):
        self.said.append(("run", run.run_id))


@pytest.fixture
def app(monkeypatch, tmp_path):
    """Flower's ServerApp, whose seams are put back after the test."""
    from importlib import import_module

    found = import_module(FLOWER_APP)
    for name in ("install_from_fab", "run_"):
        monkeypatch.setattr(found, name, getattr(found, name))
    for name in ("register_signal_handlers", "start_log_uploader", "event", "HeartbeatSender"):
        monkeypatch.setattr(found, name, lambda *_, **__: SimpleNamespace(start=lambda: None))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    return found


def ran(app, monkeypatch, bundle):
    """Let Flower run what a SuperLink hands out; return what came before the end, and its code."""
    said, codes = [], []
    monkeypatch.setattr(app, "HttpGrid", lambda **_: Grid(bundle, said))
    monkeypatch.setattr(app, "flwr_exit", lambda code, **_: codes.append(code))
    monkeypatch.setattr(app, "run_", lambda **named: said.append(named["server_app_attr"]))
    put_before_flower(PinnedApp(GOOD.sha256))
    app.run_serverapp("127.0.0.1:1", None, TOKEN, insecure=True)
    return said, codes


def test_bytes_of_the_pinned_bundle_are_run(app, monkeypatch, tmp_path):
    said, codes = ran(app, monkeypatch, GOOD)

    assert said == [("run", 7), "tiny.apps:server"]
    assert len(list((tmp_path / "flwr" / "apps").iterdir())) == 1
    assert len(codes) == 1


def test_other_bytes_under_the_pinned_name_are_neither_installed_nor_run(
    app, monkeypatch, tmp_path
):
    said, codes = ran(app, monkeypatch, tiny_bundle(version="6.6.6"))

    assert said == [("run", 7)]
    assert not (tmp_path / "flwr").exists()
    assert codes == [app.ExitCode.SERVERAPP_EXCEPTION]


def test_flower_that_would_run_what_it_did_not_install_here_runs_nothing(app, monkeypatch):
    kept = app.install_from_fab
    monkeypatch.setattr(app, "run_", lambda **_: pytest.fail("it was run"))
    put_before_flower(PinnedApp(GOOD.sha256))

    with pytest.raises(Exception, match="was not looked at"):
        app.run_(server_app_dir="/anywhere")

    assert app.install_from_fab is not kept


@pytest.mark.parametrize("name", ["install_from_fab", "run_"])
def test_flower_that_installs_or_runs_apps_elsewhere_is_not_started(app, monkeypatch, name):
    monkeypatch.delattr(app, name)

    with pytest.raises(SystemExit, match=f"has no {name}: pip install"):
        put_before_flower(PinnedApp(GOOD.sha256))
