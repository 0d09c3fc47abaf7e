"""A deployed run's candidate: exported on a reference fleet, judged, and only then proposed."""

import json
import shutil
import tomllib
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.app.user_config import UserConfig

from models.bundle import load_bundle
from models.training.export_onnx import read_parameters
from models.wire.rounds import DEVICES_RECORD, RECEIPT_MESSAGE
from server.errors import RegistryError
from server.flower_app import app
from server.releases.admission import Payment, admitted
from server.runs.export_note import EXPORT_FILE, keep_note, was_fitted_on
from server.runs.replay_record import folder_digest
from server.signer import load_signer, make_key_file
from tests.support.command_line import fedcell
from tests.support.federated_rounds import contribution, task_of
from tests.support.flower_grid import GridInMemory
from tests.support.operator_keys import make_stream_key_file
from tests.support.system_parts import REPOSITORY

pytestmark = pytest.mark.slow
NOW = datetime(2026, 11, 22, tzinfo=UTC)
DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
]


def node(message):
    if message.metadata.message_type == "query":
        return [RecordDict({DEVICES_RECORD: ConfigRecord({"device_ids": ["d-2", "d-5"]})})]
    if message.metadata.message_type == RECEIPT_MESSAGE:
        return [RecordDict()]
    task = task_of(message)
    size = read_parameters(load_bundle("default").model_bytes).flat().size
    facts = {"stream": task.stream, "index": task.index, "num_devices": len(task.device_ids)}
    return [contribution(np.zeros(size, np.int64), **facts)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "fleet"
    fedcell(*("simulate", "fleet", "--devices", 80, "--days", 300, "--seed", 21, "--out", folder))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, reference):
    """A deployed run of two rounds from the default weights, looked at on the reference fleet."""
    return run_of(tmp_path_factory.mktemp("finished"), reference)


def run_of(base, reference, **changes):
    make_key_file(base / "policy.pem")
    make_stream_key_file(base / "stream.operator")
    said = DECLARED | {
        "stream-key-file": str(base / "stream.operator"),
        "policy-key": str(base / "policy.pem"),
        "privacy-home": str(base / "home"),
        "start-weights": "default",
        "out": str(base / "run"),
        "reference": str(reference),
        "rounds": 2,
        "cohort": 1,
        **changes,
    }
    context = Context(
        run_id=1, node_id=1, node_config=UserConfig(), state=RecordDict(), run_config=said
    )
    app(grid=GridInMemory({1: node}), context=context)
    return base


@pytest.fixture
def base(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "base", copy_function=shutil.copy2)
    return tmp_path / "base"


def export(base, reference, *more):
    words = ("--start", "default", "--reference", reference, *more)
    return fedcell("rounds", "export", base / "run", *words)


def test_candidate_holds_the_runs_weights_and_is_judged_on_the_other_half(base, reference):
    told = export(base, reference, "--json").json()

    bundle = load_bundle(base / "run" / "bundle.zip", allow_unsigned=True)
    assert (bundle.version, bundle.digest) == (told["version"], told["digest"])
    with np.load(base / "run" / "weights.npz") as arrays:
        assert np.array_equal(read_parameters(bundle.model_bytes).flat(), arrays["weights"])
    report = json.loads((base / "run" / "run.json").read_text(encoding="utf-8"))
    assert bundle.manifest["ledger_entry"]["hash"] == report["rounds"][-1]["ledger_hash"]
    (figures,) = bundle.card["metrics"].values()
    assert set(figures) == {"start", "rounds"}

    judged = fedcell("rounds", "judge", base / "run", "--reference", reference, "--json")
    on_the_half = json.loads((base / "run" / "proposal.json").read_text(encoding="utf-8"))
    assert judged.code == (0 if on_the_half["passed"] else 1)
    assert was_fitted_on(base / "run", folder_digest(reference))
    (base / "run" / EXPORT_FILE).unlink()
    (base / "run" / "run.json").unlink()
    fedcell("rounds", "judge", base / "run", "--reference", reference, "--json")
    on_all = json.loads((base / "run" / "proposal.json").read_text(encoding="utf-8"))
    assert on_all["checks"] != on_the_half["checks"]


def test_the_candidate_of_a_deployed_run_is_offered_to_a_canary_ring(
    reference, tmp_path, monkeypatch
):
    """As the guide of rounds types it, from the run's folder on; so small a C passes the gate."""
    base = run_of(tmp_path, reference, **{"clipping-norm": 1e-4})
    monkeypatch.chdir(base)

    def typed(*words):
        ran = fedcell(*words, "--json")
        assert ran.code == 0, ran.err
        return ran.json()

    assert export(base, reference).code == 0
    assert typed("rounds", "judge", "run", "--reference", reference)["passed"]
    for name in ("root", "release", "fedcell-releases"):
        typed("release", "key", "--out", f"{name}.pem")
    keys = ("--root-key", "root.pem", "--release-key", "release.pem")
    online = ("--online-key", "fedcell-releases.pem.public.json")
    typed("release", "root", *keys, *online, "--out", "trust-1")
    typed("release", "accept", "trust-1")
    (base / "canary.txt").write_text("d-2\nd-5\n")
    typed("release", "ring", "set", "canary=canary.txt")

    proposed = typed("release", "propose", "run", "--home", "home")
    signed = typed("release", "sign", proposed["request"], "--key", "release.pem")
    typed("release", "accept", signed["answer"])
    typed("release", "ring", "start")

    (shown,) = typed("release", "status")["releases"]
    exported = load_bundle(base / "run" / "bundle.zip", allow_unsigned=True)
    assert (shown["version"], shown["state"], shown["ring"]) == (
        *(exported.version, "rolling"),
        "canary",
    )
    offered = base / "fedcell-releases" / "repository" / "targets"
    signing = load_signer(base / "release.pem").verify_key
    trusted = {signing.key_id: signing.to_bytes()}
    found = {
        path.parent.name: load_bundle(path, trusted_keys=trusted).version
        for path in offered.rglob("*.zip")
    }
    assert found == {"canary": exported.version}


def test_a_federated_bundle_enters_only_with_a_passed_decision_on_itself(base, reference):
    export(base, reference)
    bundle = load_bundle(base / "run" / "bundle.zip", allow_unsigned=True)
    payment = Payment(run=base / "run", home=base / "home")
    decision = {"passed": True, "candidate": {"digest": bundle.digest}}
    path = base / "run" / "proposal.json"

    with pytest.raises(RegistryError, match=r"no proposal\.json of its own"):
        admitted(bundle, payment, now=NOW)
    path.write_text(json.dumps(decision | {"passed": False}))
    with pytest.raises(RegistryError, match="not passed by the quality gate"):
        admitted(bundle, payment, now=NOW)
    path.write_text(json.dumps(decision | {"candidate": {"digest": "0" * 64}}))
    with pytest.raises(RegistryError, match=r"no proposal\.json of its own"):
        admitted(bundle, payment, now=NOW)
    path.write_text(json.dumps(decision))
    assert admitted(bundle, payment, now=NOW).digest == bundle.digest


def test_an_export_overwrites_no_bundle_and_takes_no_fleet_that_the_run_trained_over(
    base, reference, tmp_path
):
    assert export(base, reference).code == 0
    before = (base / "run" / "bundle.zip").read_bytes()
    assert export(base, reference).is_refused(3, "bundle.zip: is there already", "--out")
    assert (base / "run" / "bundle.zip").read_bytes() == before
    assert export(base, reference, "--out", tmp_path / "another.zip").code == 0

    report = base / "run" / "run.json"
    told = json.loads(report.read_text(encoding="utf-8"))
    facts = {"fleet_sha256": folder_digest(reference), "reference_sha256": None}
    report.write_text(json.dumps(told | {"record": told["record"] | facts}))
    refused = export(base, reference, "--out", tmp_path / "own.zip")
    assert refused.is_refused(3, "is the fleet that", "name one that is nobody's")
    assert not (tmp_path / "own.zip").exists()


def test_every_fleet_that_an_export_was_fitted_on_is_remembered(base):
    run = base / "run"
    for sha256 in ("aa" * 32, "bb" * 32, "bb" * 32):
        keep_note(run, digest="cc" * 32, reference_sha256=sha256)
    assert was_fitted_on(run, "aa" * 32)
    assert was_fitted_on(run, "bb" * 32)
    assert not was_fitted_on(run, "dd" * 32)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "weights.npz").write_bytes(b"PK"), "weights.npz: holds no weights"),
        (
            lambda run: np.savez(run / "weights.npz", weights=np.zeros(3, np.float32)),
            "holds other weights than run.json reports",
        ),
    ],
)
def test_weights_that_are_not_the_runs_are_refused(base, reference, spoil, words):
    spoil(base / "run")

    assert export(base, reference).is_refused(3, words)
    assert not (base / "run" / "bundle.zip").exists()


def test_another_start_an_open_run_and_a_fleet_without_outcomes_are_refused(
    base, reference, tmp_path
):
    report = base / "run" / "run.json"
    told = json.loads(report.read_text(encoding="utf-8"))
    bare = shutil.copytree(reference, tmp_path / "bare")
    (bare / "outcomes.parquet").unlink()
    assert export(base, bare).is_refused(3, "has no outcomes to look at")

    report.write_text(json.dumps(told | {"record": told["record"] | {"start_sha256": "0" * 64}}))
    assert export(base, reference).is_refused(3, "started from other weights than")
    report.write_text(json.dumps(told | {"status": "running"}))
    assert export(base, reference).is_refused(1, "the run is running")
    assert fedcell(
        *("rounds", "export", tmp_path, "--start", "default", "--reference", reference)
    ).is_refused(4, "there is no run here")
