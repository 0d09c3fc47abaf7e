"""A model that silences its devices, by what the hub keeps of them."""

from datetime import timedelta

import pytest

from models.bundle import DEFAULT, load_bundle
from models.wire.messages import Birth
from server.releases.rings import ReleaseState, Ring, RingPolicy, why_waiting
from server.storage.devices import Devices
from tests.support.releases import now, release_lab
from tests.support.wire_messages import numbered_id, summary

CANARY = [f"c-{number}" for number in range(50)]
OTHERS = [f"d-{number}" for number in range(20)]
POLICY = RingPolicy(soak=timedelta(hours=24), least_summaries=0)


@pytest.fixture
def lab(tmp_path):
    with release_lab(tmp_path) as found:
        found.rings(Ring("canary", devices=frozenset(CANARY)))
        yield found


def hear(lab, names, version, *, at):
    """Keep that devices spoke, and what they run."""
    with lab.database.transaction() as connection:
        devices = Devices(connection)
        for number, name in enumerate(names):
            devices.seen(name, now=at)
            named = {"device": name, "model_version": version}
            devices.keep_summary(summary(id=numbered_id(number), **named), now=at)
            birth = Birth(
                id=numbered_id(number),
                sequence=number,
                issued=at.replace(microsecond=0),
                client_version="0.1.0",
                feature_spec_version="1",
                **named,
            )
            devices.keep_birth(birth)


@pytest.mark.parametrize(("silent", "state"), [(5, "groups"), (15, "waits"), (42, "halts")])
def test_a_ring_whose_devices_go_silent_does_not_go_on(lab, silent, state):
    default = str(load_bundle(DEFAULT).version)
    number = lab.signed(lab.bundle(1), POLICY).rollout.number
    began = now() - timedelta(hours=25)
    hear(lab, [*CANARY, *OTHERS], default, at=began - timedelta(hours=3))
    lab.desk.start(number, now=began)

    hear(lab, OTHERS, default, at=began + timedelta(hours=2))
    hear(lab, CANARY[silent:], "update-1", at=began + timedelta(hours=2))
    kept, evidence = lab.desk.advance(now=now())

    assert (evidence.active, evidence.running) == (50 - silent, 50 - silent)
    assert (evidence.presence.missing, evidence.elsewhere.missing) == (silent, 0)
    told = (kept.rollout.state, kept.rollout.ring)
    if state == "groups":
        assert told == (ReleaseState.ROLLING, 1)
    elif state == "waits":
        assert told == (ReleaseState.ROLLING, 0)
        waits = why_waiting(kept.rollout, evidence, kept.policy, now=now())
        assert waits == ["5 of 15 that spoke before, and not since"]
    else:
        assert told == (ReleaseState.HALTED, 0)
        assert "42 of 50 devices that spoke before are silent" in kept.rollout.reason
        # An operator decided: only who was heard in the last day is waited for, and that is none
        # of those that fell silent.
        lab.desk.resume(number, now=now())
        assert lab.desk.evidence(number).presence.missing == 50 - silent
