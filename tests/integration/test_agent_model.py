"""The agent, a new model and a gauge: kept after its first report, given up after silent starts."""

from datetime import timedelta

import pytest

from edge_client.agent import AgentParts, AgentPlan, DeviceAgent, elapsed_s
from edge_client.client import EdgeClient
from edge_client.link.counters import AgentCounters
from edge_client.model_store import ModelStore
from edge_client.store.mailbox import Purpose
from models.prediction import Status
from models.wire.link import Link, LinkSettings
from tests.support.edge_devices import NOW, fading_life, new_store
from tests.support.update_bundles import trusted_keys, write_variant


@pytest.fixture
def path(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
        store.set_consent(Purpose.SUMMARIES, granted=True, now=NOW)
        return store.path


@pytest.fixture
def models(path, tmp_path):
    bundle = write_variant(tmp_path / "update.zip", number=1, release=1)
    models = ModelStore.beside(path)
    models.install(bundle, trusted_keys=trusted_keys())
    assert models.is_on_trial()
    return models


def agent_of(client, **choices):
    link = Link(LinkSettings(host="127.0.0.1", port=1, client_id="a"), jitter=None)
    return DeviceAgent(
        client,
        link,
        plan=AgentPlan(),
        clock=lambda: NOW,
        counters=AgentCounters(),
        on_report=lambda _report: None,
        show=lambda _id, _notice: None,
        **choices,
    )


def test_a_new_model_is_kept_after_the_first_report_made_with_it(path, models):
    with EdgeClient(path) as client:
        agent = agent_of(client)
        assert client.predictor.bundle.version == "update-1"
        assert models.is_on_trial()
        assert models.state().starts == 0
        agent._predict_where_due()
    assert not models.is_on_trial()
    assert models.committed().version == "update-1"


def test_a_new_model_that_makes_no_report_in_its_starts_is_given_up(
    path, models, caplog, monkeypatch
):
    class Killed(BaseException):
        """The model ends its process."""

    def end(*_arguments):
        raise Killed

    monkeypatch.setattr("models.inference.Predictor.outputs", end)
    for starts in (1, 2, 3):
        with EdgeClient(path) as client, pytest.raises(Killed):
            agent_of(client)._predict_where_due()
        assert models.state().starts == starts
    monkeypatch.undo()
    with EdgeClient(path) as client:
        assert client.predictor.bundle.version == "update-1"
        assert client.predict(NOW).model_version.startswith("default-")
        assert client.predictor.bundle.version.startswith("default-")
    assert not models.is_on_trial()
    assert models.last_refusal().reason == "no_report"
    assert "update-1 was given up" in caplog.text


def test_starts_without_a_prediction_count_for_nothing(path, models):
    """Predictions stopped from afar, or a gauge that is silent, say nothing of a model."""
    for _ in range(5):
        with EdgeClient(path) as client:
            client.store.keep_fact("configuration", {"sequence": 1, "prediction": False})
            agent = agent_of(client)
            agent._plan = AgentPlan(timeout_s=0.05, poll_s=0.05)
            agent.run()
            assert agent.counters.predictions == 0
    with EdgeClient(path) as client:
        client.store.keep_fact("configuration", {"sequence": 2})
        for _ in range(5):
            assert client.predict(NOW + timedelta(days=20)).status is Status.STALE
        assert (models.is_on_trial(), models.state().starts) == (True, 0)
        assert client.predict(NOW).status is Status.OK
    assert models.committed().version == "update-1"


class Gauge:
    """Takes a reading at each call, and is asked when it wants to be."""

    def __init__(self):
        self.polled = []
        self.is_closed = False

    def poll(self, *, now, elapsed_s):
        self.polled.append((now, elapsed_s))

    def wait_s(self, elapsed_s):
        return 0.01

    def close(self):
        self.is_closed = True


class Ear:
    """A supervisor that wants to hear something every hundredth of a second."""

    every_s = 0.01

    def __init__(self):
        self.heard = []

    def ping(self, elapsed_s):
        self.heard.append(elapsed_s)


def test_the_loop_takes_readings_and_tells_its_supervisor_without_any_broker(path):
    gauge, ear = Gauge(), Ear()
    with EdgeClient(path) as client:
        agent = agent_of(client, parts=AgentParts(sampler=gauge, supervisor=ear))
        agent._plan = AgentPlan(timeout_s=0.4, poll_s=5.0)
        began = elapsed_s()
        agent.run()
    assert len(gauge.polled) > 5
    assert len(ear.heard) > 5
    assert all(began <= moment for _, moment in gauge.polled)
    assert gauge.is_closed


def test_predictions_that_are_stopped_are_not_made_and_nothing_is_told(path):
    with EdgeClient(path) as client:
        client.store.keep_fact("configuration", {"sequence": 1, "prediction": False})
        agent = agent_of(client)
        agent._predict_where_due()
        assert agent.counters.predictions == 0
        client.store.keep_fact("configuration", {"sequence": 2, "summaries": False})
        agent._predict_where_due()
        assert (agent.counters.predictions, agent.counters.summaries) == (1, 0)
        assert client.store.outbox() == ()


def test_an_interval_from_afar_takes_the_place_of_the_devices_own(path, monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr("edge_client.agent.elapsed_s", lambda: now_s[0])
    with EdgeClient(path) as client:
        agent = agent_of(client)
        agent._predict_where_due()
        client.store.keep_fact("configuration", {"sequence": 1, "predict_every_h": 48})
        now_s[0] = 47.9 * 3600
        agent._predict_where_due()
        assert agent.counters.predictions == 1
        now_s[0] = 48.0 * 3600
        agent._predict_where_due()
        assert agent.counters.predictions == 2
