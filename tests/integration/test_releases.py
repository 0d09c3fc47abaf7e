"""Releases from proposal to fleet and back: real bundles, real metadata, real HTTP, real slots."""

import pytest

from server.releases.rings import ReleaseState, Ring
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
