"""Counts in a deployed run: both Flower apps, real stores, ledgers on both sides, `counts.json`."""

import json
import tomllib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfig

import edge_client.flower_app
import server.flower_app
from edge_client.model_store import INSTALLED, ModelStore
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.held_out_devices import turn_of
from models.telemetry import DeviceId, Reading
from models.training.local_epochs import new_flat_weights
from models.wire.counts import COUNTS_RECORD, QUESTION_RECORD, Bins, CountTask
from models.wire.rounds import FLAT_ARRAY
from privacy import CountAnswer, CountRelease, Participation, events_of
from privacy.accountant import device_epsilon, release_epsilon
from server.counts.run_counts import DriftReference
from server.privacy_home.ledger_file import LEDGER_FILE, read_ledger_file
from server.signer import make_key_file
from tests.support.edge_devices import PROFILE
from tests.support.flower_grid import GridInMemory
from tests.support.operator_keys import make_stream_key_file
from tests.support.system_parts import REPOSITORY

IDS = [f"device-{number}" for number in range(40)]
HELD_OUT = [name for name in IDS if turn_of(name, "held out") < 0.2][:2]
IN_TRAINING = [name for name in IDS if turn_of(name, "held out") >= 0.2][:3]
REFUSING = IN_TRAINING[-1]
"""Has no key that may sign policies, so that it refuses every task."""
REFERENCE = DriftReference((Bins("health_margin", (0.5,)),), {"health_margin": (0.2, 0.7, 0.1)})
DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"]


@dataclass
class Node:
    """A real ClientApp over a real store; notes the counts that it is asked and answers."""

    store: object
    node_config: dict
    asked: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)

    def __call__(self, message):
        context = Context(
            run_id=1, node_id=1, node_config=self.node_config, state=RecordDict(), run_config={}
        )
        reply = edge_client.flower_app.app(message=message, context=context)
        assert not reply.has_error()
        if QUESTION_RECORD in message.content:
            task = CountTask.from_plain(message.content.config_records[QUESTION_RECORD])
            self.asked.append(task.channel)
            counts = reply.content.array_records[COUNTS_RECORD][FLAT_ARRAY].numpy()
            self.answers[task.channel] = counts
        return [reply.content]

    def events(self):
        with TelemetryStore(self.store) as store:
            return read_device_ledger(store.path, store).events


@pytest.fixture
def fleet(tmp_path):
    """Nodes by device; each has 300 days of a battery that does not fail."""
    now = datetime.now(UTC)
    make_key_file(tmp_path / "policy.pem")
    keys = tmp_path / "policy.pem.public.json"
    readings = [
        Reading(at=now - timedelta(days=300 - day), full_charge_capacity_mah=2900.0 - day)
        for day in range(300)
    ]
    nodes = {}
    for name in (*IN_TRAINING, *HELD_OUT):
        path = tmp_path / f"{name}.db"
        with TelemetryStore.create(
            path, profile=replace(PROFILE, device_id=DeviceId(name))
        ) as store:
            store.record_many(readings, now=now)
            store.set_consent(Purpose.TRAINING, granted=True, now=now)
        trusted = {} if name == REFUSING else {"policy-keys": str(keys)}
        nodes[name] = Node(
            path, {"telemetry-db": str(path), "power-supplies": "/nowhere"} | trusted
        )
    return nodes


def run_deployed(fleet, tmp_path, **changes):
    np.savez(tmp_path / "start.npz", weights=new_flat_weights(seed=1))
    (tmp_path / "reference.json").write_text(json.dumps(REFERENCE.to_json()))
    model = ModelStore.beside(fleet[HELD_OUT[0]].store).open(INSTALLED)
    make_stream_key_file(tmp_path / "stream.operator")
    said = {
        "stream-key-file": str(tmp_path / "stream.operator"),
        "policy-key": str(tmp_path / "policy.pem"),
        "start-weights": str(tmp_path / "start.npz"),
        "out": str(tmp_path / "run"),
        "privacy-home": str(tmp_path / "home"),
        "drift-reference": str(tmp_path / "reference.json"),
        "model-version": model.version,
        "similar-devices": 1,
        "metrics-every": 1,
        "rounds": 2,
        "cohort": 3,
        "deadline-s": 30.0,
    }
    config = DECLARED["config"] | said | changes
    context = Context(
        run_id=1, node_id=1, node_config=UserConfig(), state=RecordDict(), run_config=config
    )
    server.flower_app.app(
        grid=GridInMemory(dict(enumerate(fleet.values()))),
        context=context,
    )
    return json.loads((tmp_path / "run" / "counts.json").read_text(encoding="utf-8"))


def test_counts_of_a_deployed_run_from_the_question_to_the_record(fleet, tmp_path):
    told = run_deployed(fleet, tmp_path)

    # Whom a channel asks, and what they say: held-out devices metrics, the others the rest.
    for name in HELD_OUT:
        assert fleet[name].asked == ["metrics"]
        assert fleet[name].answers["metrics"].sum() == 1
        (answer,) = fleet[name].events()
        assert isinstance(answer, CountAnswer)
        assert answer.held_out
    for name in IN_TRAINING:
        assert fleet[name].asked == ["drift", "similar_devices"]
        said = [int(vector.sum()) for vector in fleet[name].answers.values()]
        kinds = [type(event) for event in fleet[name].events()]
        taken = (kinds.count(Participation), kinds.count(CountAnswer))
        assert (said, taken) == (([0, 0], (0, 0)) if name == REFUSING else ([1, 1], (2, 2)))

    # The server's ledger holds each release, and covers what a device has debited.
    entries = read_ledger_file(tmp_path / "home" / LEDGER_FILE)
    releases = [event for event in events_of(entries) if isinstance(event, CountRelease)]
    assert {(e.channel, e.cohort_size, e.held_out) for e in releases} == {
        ("metrics", 2, True),
        ("drift", 3, False),
        ("similar_devices", 3, False),
    }
    assert {entry.kind for entry in entries} == {"stream"}
    spent = release_epsilon(events_of(entries), delta=1e-8)
    for node in fleet.values():
        assert device_epsilon(node.events(), delta=1e-8) <= spent * (1 + 1e-6) <= 2.0
    report = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert report["privacy"]["epsilon_release"] == pytest.approx(spent)
    assert report["privacy"]["home_head"] == entries[-1].reference()

    # So few devices cannot be heard over the noise, and the record says so.
    figures = {**told["evaluations"][0]["figures"], **told["drift"]}
    assert all(figure["in_words"].startswith("not measurable: ") for figure in figures.values())
    assert all(cell["devices"] is None for cell in told["similar_devices"])
    assert {one["entry_hash"] for one in told["releases"]} <= {entry.hash for entry in entries}
    assert len(told["releases"]) == 3
    # After the second round it was too soon to ask again.
    assert set(told["not_asked"]) == {"metrics", "drift", "similar_devices"}


@dataclass
class LateNode:
    """A node that cannot say what it has at the first questions, and can ever after."""

    node: Node
    fails: int = 1

    def __call__(self, message):
        if message.metadata.message_type == "query" and self.fails:
            self.fails -= 1
            return "not yet"
        return self.node(message)

    @property
    def store(self):
        return self.node.store


def enrolled_in(fleet, tmp_path):
    lines = ["device_id", *fleet]
    (tmp_path / "enrolled.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"enrolment": str(tmp_path / "enrolled.csv")}


def no_way_of(told):
    releases = told["releases"]
    return {json.loads(one["question"])["kind"]: one["no_way"] for one in releases}


def test_who_slept_at_a_run_s_first_question_is_asked_for_counts_once_awake(fleet, tmp_path):
    late = HELD_OUT[0]
    nodes = fleet | {late: LateNode(fleet[late])}

    told = run_deployed(nodes, tmp_path, **enrolled_in(fleet, tmp_path))

    assert fleet[late].asked == ["metrics"]
    assert no_way_of(told) == {"evaluation": 0, "drift": 0, "similar_devices": 0}


def test_counts_tell_how_many_devices_no_node_named(fleet, tmp_path, caplog):
    late = IN_TRAINING[0]
    nodes = fleet | {late: LateNode(fleet[late], fails=100)}

    told = run_deployed(nodes, tmp_path, **enrolled_in(fleet, tmp_path))

    assert fleet[late].asked == []
    assert no_way_of(told) == {"evaluation": 0, "drift": 1, "similar_devices": 1}
    assert "1 of 3 devices asked are behind no node that is here" in caplog.text


def test_a_run_of_a_policy_without_counts_asks_for_none(fleet, tmp_path):
    told = run_deployed(fleet, tmp_path, **{"update-share": 1.0, "rounds": 1})

    assert all(node.asked == [] for node in fleet.values())
    assert told["releases"] == []
    assert "has no channel 'metrics'" in told["not_asked"]["metrics"]
