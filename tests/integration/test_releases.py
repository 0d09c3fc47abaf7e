"""Releases from proposal to fleet and back: real bundles, real metadata, real HTTP, real slots."""

from dataclasses import replace
from datetime import timedelta

import pytest

from edge_client.updates.follower import check_in
from models.wire.messages import ModelRefusal
from server.device_configuration import ConfigurationSender, DeviceSettings
from server.releases.announcing import Announcer
from server.releases.release_errors import ReleaseError
from server.releases.rings import ReleaseState, Ring
from server.storage.configurations import Configurations
from server.storage.releases import Releases
from tests.support.hubs import SIGNER
from tests.support.releases import LightDevice, now, release_lab
from tests.support.update_bundles import try_out_here

CANARY = Ring("canary", devices=frozenset({"c-1", "c-2"}))


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_client.updates.bundle_gate.try_out", try_out_here)
    with release_lab(tmp_path) as found:
        found.rings(CANARY)
        yield found


def test_a_release_goes_from_ring_to_ring_and_back(lab, tmp_path):
    canary = LightDevice(tmp_path, "c-1", ring="canary")
    other = LightDevice(tmp_path, "d-1")
    default = other.version
    lab.hear(canary.birth(), other.birth(), canary.summary(), other.summary())
    number = lab.started(lab.bundle(1))

    for device in (canary, other):
        device.check_in(lab.source)
    assert (canary.version, other.version) == ("update-1", default)

    lab.hear(canary.birth(), canary.summary())
    kept, evidence = lab.desk.advance(now=now())
    assert (evidence.running, kept.rollout.ring) == (1, 1)
    other.check_in(lab.source)
    assert other.version == "update-1"
    lab.hear(other.birth(), other.summary())
    kept, _ = lab.desk.advance(now=now())
    assert kept.rollout.state is ReleaseState.RELEASED

    lab.desk.withdraw(number, reason="an operator said so", now=now())
    for device in (canary, other):
        device.check_in(lab.source)
        assert device.version == default
        assert device.models.state().least_release == number + 1


@pytest.mark.parametrize("failing", [3, 8])
def test_a_model_that_ends_its_device_is_rolled_back_there_and_stopped(lab, tmp_path, failing):
    names = [f"c-{number}" for number in range(9)]
    lab.rings(Ring("canary", devices=frozenset(names)))
    devices = [LightDevice(tmp_path, name, ring="canary") for name in names]
    default = devices[0].version
    for device in devices:
        lab.hear(device.birth(), device.summary())
    for device in devices[:failing]:
        device.crashes_with.add("update-1")
    lab.started(lab.bundle(1))
    for device in devices:
        device.check_in(lab.source)
    running = [default] * failing + ["update-1"] * (9 - failing)
    assert [device.version for device in devices] == running
    assert devices[0].models.last_refusal().reason == "no_report"

    for device in devices:
        lab.hear(device.birth())
    kept, evidence = lab.desk.advance(now=now())

    assert evidence.failed == {"no_report": failing}
    assert evidence.failed_on == tuple(names[:failing])
    assert f"failed on {failing} of 9 devices (no_report {failing})" in kept.rollout.reason
    assert (
        lab.desk.advance(now=now())[0] == kept
        if failing == 3
        else lab.desk.advance(now=now()) is None
    )
    with lab.database.transaction() as connection:
        watched = Releases(connection).watched(kept.rollout.number)
    is_withdrawn = failing == 8
    assert ({one.before for one in watched} == {None}) is is_withdrawn
    assert kept.rollout.state == ("withdrawn" if is_withdrawn else "halted")
    assert (lab.desk.advance(now=now()) is None) is is_withdrawn
    for device, had in zip(devices, running, strict=True):
        device.check_in(lab.source)
        assert device.version == (default if is_withdrawn else had)


def test_two_devices_that_lie_are_set_aside_and_the_release_goes_on(lab, tmp_path):
    names = [f"c-{number}" for number in range(8)]
    lab.rings(Ring("canary", devices=frozenset(names)))
    devices = [LightDevice(tmp_path, name, ring="canary") for name in names]
    lab.hear(*(device.birth() for device in devices))
    number = lab.started(lab.bundle(1))
    lie = {"refused_model": "update-1", "refused_because": ModelRefusal.STRUCTURE}
    lab.hear(*(replace(device.birth(), **lie) for device in devices[:2]))
    halted, evidence = lab.desk.advance(now=now())
    assert (halted.rollout.state, evidence.failed_on) == (ReleaseState.HALTED, ("c-0", "c-1"))

    lab.desk.resume(number, now=now())
    for device in devices[2:]:
        device.check_in(lab.source)
        lab.hear(device.birth(), device.summary())
    lab.hear(*(replace(device.birth(), **lie) for device in devices[:2]))
    kept, evidence = lab.desk.advance(now=now())

    assert (evidence.known, evidence.running, evidence.failed) == (6, 6, {})
    assert (kept.rollout.state, kept.rollout.ring) == (ReleaseState.ROLLING, 1)


def test_a_failure_stays_known_whatever_the_device_refuses_later(lab, tmp_path):
    device = LightDevice(tmp_path, "c-1", ring="canary")
    device.crashes_with.add("update-1")
    lab.hear(device.birth())
    number = lab.started(lab.bundle(1))
    device.check_in(lab.source)
    lab.hear(device.birth())
    assert lab.desk.evidence(number).failed == {"no_report": 1}

    device.check_in(lab.source)
    assert device.models.last_refusal().reason == "rolled_back_before"
    lab.hear(
        replace(device.birth(), refused_model="other", refused_because=ModelRefusal.REPOSITORY)
    )

    assert lab.desk.evidence(number).failed == {"no_report": 1}


def test_an_older_client_keeps_being_served(lab, tmp_path):
    old, new = LightDevice(tmp_path, "d-1"), LightDevice(tmp_path, "d-2")
    lab.rings()
    lab.hear(old.birth(), new.birth())
    lab.started(lab.bundle(1, manifest={"least_client_version": "0.0.9"}))
    new.check_in(lab.source)
    lab.hear(new.birth())
    released, _ = lab.desk.advance(now=now())
    assert released.rollout.state is ReleaseState.ROLLING
    check_in(old.models, lab.source, client=(0, 0, 9), now=now())
    lab.hear(old.birth())
    released, _ = lab.desk.advance(now=now())
    assert released.rollout.state is ReleaseState.RELEASED
    lab.started(lab.bundle(2))

    waiting = LightDevice(tmp_path, "d-3")
    for device, client, version in (
        (waiting, (0, 0, 9), "update-1"),
        (new, (0, 1, 0), "update-2"),
    ):
        check_in(device.models, lab.source, client=client, now=now())
        assert device.version == version
    nobody = LightDevice(tmp_path, "d-4")
    assert check_in(nobody.models, lab.source, client=(0, 0, 1), now=now()) is None


def test_a_device_is_told_its_ring_and_what_it_was_told_before_stays(lab, tmp_path):
    device = LightDevice(tmp_path, "c-1")
    lab.hear(device.birth(), LightDevice(tmp_path, "d-1").birth())
    announcer = Announcer(lab.desk, None, SIGNER)
    with lab.database.transaction() as connection:
        sender = ConfigurationSender(connection, SIGNER, announcer.new_id)
        sender.send("c-1", DeviceSettings(training=False), now=now())

    assert (announcer.tell_rings(now=now()), announcer.tell_rings(now=now())) == (1, 0)
    with lab.database.transaction() as connection:
        kept = Configurations(connection)
        assert kept.latest("c-1").settings == {"training": False, "ring": "canary"}
        sender = ConfigurationSender(connection, SIGNER, announcer.new_id)
        sender.send("c-1", DeviceSettings(notices=False), now=now() + timedelta(seconds=5))
        assert kept.latest("c-1").settings == {"notices": False, "ring": "canary"}
        assert kept.latest("d-1") is None


def test_a_halt_keeps_what_is_there_and_offers_it_to_nobody_more(lab, tmp_path):
    first, second = (LightDevice(tmp_path, name, ring="canary") for name in ("c-1", "c-2"))
    default = second.version
    number = lab.started(lab.bundle(1))
    first.check_in(lab.source)
    lab.desk.halt(number, reason="look", now=now())

    for device, version in ((first, "update-1"), (second, default)):
        device.check_in(lab.source)
        assert device.version == version
    with pytest.raises(ReleaseError, match="is on its way"):
        lab.started(lab.bundle(2))
    lab.desk.resume(number, now=now())
    second.check_in(lab.source)
    assert second.version == "update-1"
