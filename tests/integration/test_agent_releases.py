"""A device's real agent follows its ring: told by configuration, woken by an announcement, back."""

import threading
from contextlib import contextmanager

import pytest

from edge_client.agent import AgentParts, AgentPlan, run_agent
from edge_client.client import EdgeClient
from edge_client.link.release_watch import ReleaseWatch, ring_of_device
from edge_client.store.mailbox import Purpose
from models.wire.announcements import release_topic
from models.wire.codec import encode
from models.wire.envelope import SigningKey, sign_payload
from server.releases.announcing import Announcer
from server.releases.rings import Ring
from server.releases.service import turn
from server.storage.releases import Releases
from tests.support.brokers import link_to, mosquitto_in, wait_until
from tests.support.edge_devices import fading_life, new_store
from tests.support.file_server import serving
from tests.support.hubs import SIGNER, running_hub
from tests.support.releases import Lab, now
from tests.support.update_bundles import try_out_here
from tests.support.wire_messages import announcement

pytestmark = pytest.mark.broker
NAME = "device-1"


class Late:
    """Jitter that looks as late as it may: whatever is sooner was announced."""

    def uniform(self, _low, high):
        return high


@contextmanager
def running_agent(path, broker, source):
    """Run the agent in a thread, which alone touches the store."""
    started, ends, done = threading.Event(), [], []

    def begin(agent):
        ends.append(agent)
        started.set()

    def run():
        with EdgeClient(path) as client:
            watch = ReleaseWatch(
                client.models, source, check_every_s=86_400.0, jitter=Late(), clock=now
            )
            done.append(
                run_agent(
                    client,
                    broker=(broker.host, broker.port),
                    server_keys={SIGNER.verify_key.key_id: SIGNER.verify_key.to_bytes()},
                    plan=AgentPlan(poll_s=0.1),
                    clock=now,
                    on_start=begin,
                    on_report=lambda _: None,
                    show=lambda *_: None,
                    parts=AgentParts(releases=watch),
                )
            )

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    try:
        yield ends[0]
    finally:
        ends[0].stop()
        thread.join()


@pytest.fixture
def path(tmp_path):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(until=now()), now=now())
        store.set_consent(Purpose.SUMMARIES, granted=True, now=now())
        return store.path


def test_an_agent_takes_a_release_of_its_ring_and_goes_back(tmp_path, path, monkeypatch):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    repository = tmp_path / "releases" / "repository"

    def find(name):
        file = repository / name.lstrip("/")
        return file.read_bytes() if file.is_file() else None

    with (
        mosquitto_in(tmp_path) as broker,
        running_hub(broker, tmp_path) as (_, database),
        serving(find=find) as served,
    ):
        lab = Lab(tmp_path, database, served)
        lab.rings(Ring("canary", devices=frozenset({NAME})))
        sender = link_to(broker, "fedcell-hub-releases")
        announcer = Announcer(lab.desk, sender, SIGNER)

        def said(model):
            with database.transaction() as connection:
                found = dict(Releases(connection).spoken())
            return found.get(NAME) and found[NAME]["model_version"].startswith(model)

        def ring():
            with EdgeClient(path) as client:
                return ring_of_device(client.store)

        with sender, running_agent(path, broker, lab.source) as agent:
            assert wait_until(lambda: said("default"))
            turn(lab.desk, announcer, clock=now)
            assert wait_until(lambda: ring() == "canary")

            forged = encode(announcement(sequence=10**9))
            stranger = SigningKey.from_bytes(bytes([9]) * 32)
            sender.publish(release_topic("canary"), sign_payload(forged, stranger), retain=True)
            assert wait_until(lambda: agent.counters.refused.get("unknown_key"))
            assert said("default")

            number = lab.started(lab.bundle(1))
            turn(lab.desk, announcer, clock=now)
            assert wait_until(lambda: said("update-1"))

            lab.desk.withdraw(number, reason="an operator said so", now=now())
            turn(lab.desk, announcer, clock=now)
            assert wait_until(lambda: said("default"))
    with EdgeClient(path) as client:
        assert client.models.state().least_release == number + 1
