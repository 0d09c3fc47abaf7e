"""A bad model in a canary ring of 50 devices, over a real broker, a real hub and real HTTP."""

import threading
import time

import pytest
from sqlalchemy import select

from models.wire import topics
from models.wire.announcements import decode_announcement, release_topic
from models.wire.codec import encode
from models.wire.envelope import open_signed, trusted_keys
from server.releases.announcing import Announcer
from server.releases.desk import REPOSITORY
from server.releases.file_server import FileServer
from server.releases.rings import ReleaseState, Ring
from server.releases.service import turn
from server.storage.tables import devices
from tests.support.brokers import Heard, link_to, mosquitto_in, wait_until
from tests.support.hubs import SIGNER, running_hub
from tests.support.line_bundle import line_bundle
from tests.support.releases import Lab, LightDevice, now
from tests.support.update_bundles import try_out_here

pytestmark = pytest.mark.broker
CANARY = 50


class Fleet:
    """Devices that speak through one link, and look when a release is announced to them."""

    def __init__(self, broker, source, folder, names, **choices):
        self.source = source
        self.heard = Heard()
        self.link = link_to(broker, "light-devices")
        self.devices = [LightDevice(folder, name, **choices) for name in names]
        for ring in ("canary", "fleet"):
            self.link.subscribe(release_topic(ring), self.heard)

    def announced(self, ring):
        trusted = trusted_keys(SIGNER.verify_key)
        found = [
            decode_announcement(open_signed(payload, trusted))
            for topic, payload in list(self.heard.messages)
            if topic == release_topic(ring)
        ]
        return found[-1] if found else None

    def check_in(self):
        """Every device looks once."""
        for device in self.devices:
            device.check_in(self.source)

    def speak(self, database):
        """Every device says what it runs and what it predicts; wait until the hub has kept it."""
        said = [
            message for device in self.devices for message in (device.birth(), device.summary())
        ]
        for message in said:
            self.link.publish(topics.up(message.device, message.TOPIC), encode(message))
        last = {message.device: message.sequence for message in said}

        def is_kept():
            time.sleep(0.1)
            with database.transaction() as connection:
                rows = connection.execute(select(devices.c.device_id, devices.c.last_sequence))
                kept = {row.device_id: row.last_sequence for row in rows}
            return last.items() <= kept.items()

        assert wait_until(is_kept)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    names = [f"canary-{number}" for number in range(CANARY)]
    with mosquitto_in(tmp_path) as broker, running_hub(broker, tmp_path) as (_, database):
        server = FileServer(tmp_path / "releases" / REPOSITORY, host="127.0.0.1", port=0)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        lab = Lab(tmp_path, database, server)
        lab.rings(Ring("canary", devices=frozenset(names)))
        canary = Fleet(broker, lab.source, tmp_path, names, ring="canary")
        others = [f"other-{number}" for number in range(4)]
        rest = Fleet(broker, lab.source, tmp_path, others)
        sender = link_to(broker, "fedcell-hub-releases")
        announcer = Announcer(lab.desk, sender, SIGNER)
        rest.link = canary.link
        with canary.link, sender:
            yield lab, announcer, canary, rest
        server.shutdown()
        thread.join()
        server.server_close()


def carried(lab, announcer):
    """One turn of the process that carries releases."""
    found = []
    turn(lab.desk, announcer, clock=now, tell=lambda *what: found.append(what))
    return found[0] if found else None


def test_a_bad_model_halts_in_the_canary_ring_and_every_device_goes_back(world):
    lab, announcer, canary, rest = world
    old = canary.devices[0].version
    for fleet in (canary, rest):
        fleet.speak(lab.database)
    alarmist = line_bundle(name="alarmist", scale=0.01)
    path = lab.public(alarmist)
    number = lab.started(path)
    carried(lab, announcer)
    assert wait_until(lambda: canary.announced("canary"))
    assert canary.announced("canary").version == alarmist.version
    assert canary.announced("fleet") is None

    for fleet in (canary, rest):
        fleet.check_in()
        fleet.speak(lab.database)
    assert {device.version for device in canary.devices} == {alarmist.version}
    assert {device.version for device in rest.devices} == {old}

    kept, evidence = carried(lab, announcer)
    assert (evidence.compared, evidence.running) == (CANARY, CANARY)
    assert kept.rollout.state is ReleaseState.WITHDRAWN
    assert kept.rollout.ring == 0
    assert "moved by" in kept.rollout.reason
    carried(lab, announcer)
    assert wait_until(lambda: canary.announced("canary").release == number + 1)

    for fleet in (canary, rest):
        fleet.check_in()
        assert {device.version for device in fleet.devices} == {old}
