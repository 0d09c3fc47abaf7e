"""Which nodes are let in, when a part is started again, when a bundle is pinned anew."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from models.wire.app_pin import AppPin
from models.wire.envelope import SigningKey, trusted_keys
from models.wire.errors import SignatureError, WireError
from server.deployment.app_bundle import AppBundle
from server.deployment.app_pin import is_pinned, pin_of
from server.deployment.node_registry import (
    BoundDevice,
    NodeState,
    RegisteredNode,
    bound_devices,
    changes_to,
    enrolment_csv,
)
from server.deployment.nodes import EnrolledNodes, bring_up_to_date
from server.deployment.serving import Job
from server.deployment.supervision import PartRecord, pause_after

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUNDLE = AppBundle(b"code", "0.1.0", "1.41.0")


def node(number, key, name="d", state=NodeState.ONLINE):
    return RegisteredNode(node_id=number, public_key=key, name=name, state=state)


def test_keys_of_enrolled_devices_are_let_in_and_all_others_shut_out():
    changes = changes_to({"a": b"A", "b": b"B"}, [node(1, b"A", "a"), node(7, b"X", "gone")])

    assert changes.register == {"b": b"B"}
    assert [one.node_id for one in changes.unregister] == [7]
    assert changes.is_needed


def test_nothing_is_done_where_both_lists_agree():
    assert not changes_to({"a": b"A"}, [node(1, b"A", "a")]).is_needed


def test_device_that_joined_anew_gets_another_node():
    changes = changes_to({"a": b"new"}, [node(1, b"old", "a")])

    assert (changes.register, [one.node_id for one in changes.unregister]) == ({"a": b"new"}, [1])


def test_gateway_speaks_for_its_devices_and_is_none_itself():
    found = bound_devices(
        {"a": b"A", "gate": b"G", "small": b"S"},
        [node(1, b"A"), node(2, b"G", state=NodeState.OFFLINE), node(3, b"S")],
        {"small": "gate", "smaller": "gate"},
    )

    assert [(one.device_id, one.gateway, one.node_id) for one in found] == [
        ("a", "a", 1),
        ("small", "gate", 2),
        ("smaller", "gate", 2),
    ]


class CountedGateways(dict):
    """Gateways by device, and how often all of them were gone through."""

    walks = 0

    def values(self):
        self.walks += 1
        return super().values()


def test_large_site_is_gone_through_once_and_not_for_each_device():
    behind = CountedGateways({f"d-{number:05d}": f"g-{number % 7}" for number in range(500)})

    found = bound_devices({f"g-{number}": b"%d" % number for number in range(7)}, [], behind)

    assert len(found) == 500
    assert behind.walks == 1


class Registry:
    """A SuperLink's list of nodes that is up to date."""

    def nodes(self):
        return (node(1, b"A", "a"),)


def test_devices_are_bound_to_nodes_only_where_somebody_asks(monkeypatch):
    bound = []

    def counted(*arguments):
        bound.append(arguments)
        return bound_devices(*arguments)

    monkeypatch.setattr("server.deployment.nodes.bound_devices", counted)

    found = bring_up_to_date(Registry(), EnrolledNodes({"a": b"A"}, {}))

    assert bound == []
    assert ([one.node_id for one in found.devices], found.num_online) == ([1], 1)
    assert len(bound) == 1


def test_device_whose_key_is_not_let_in_yet_has_no_node():
    (found,) = bound_devices({"a": b"A"}, [], {})

    assert (found.node_id, found.state, found.was_seen) == (None, None, False)


@pytest.mark.parametrize(
    ("state", "was_seen"),
    [(NodeState.REGISTERED, False), (NodeState.ONLINE, True), (NodeState.OFFLINE, True)],
)
def test_device_was_seen_where_its_node_was_ever_online(state, was_seen):
    device = BoundDevice(device_id="a", gateway="a", node_id=1, state=state)

    assert device.was_seen is was_seen


def test_enrolment_names_devices_and_the_nodes_they_are_bound_to():
    devices = [
        BoundDevice(device_id="a", gateway="a", node_id=2**63 + 5, state=NodeState.ONLINE),
        BoundDevice(device_id='b"c', gateway="g", node_id=None, state=None),
    ]

    assert enrolment_csv(devices) == f'device_id,node_id\na,{2**63 + 5}\n"b""c",\n'


def test_pauses_double_up_to_a_minute():
    assert [pause_after(n) for n in (1, 2, 3, 6, 7, 8, 10_000)] == [1, 2, 4, 32, 60, 60, 60]


def test_part_that_never_was_ready_is_given_up_and_another_is_not():
    never = PartRecord().begun(0).died(1)
    once = PartRecord().begun(0).answered(5).died(9)

    assert never.is_hopeless
    assert not once.is_hopeless
    assert (once.deaths, once.due_at) == (1, 10)
    assert once.begun(10).died(11).due_at == 13


def test_calm_time_is_counted_from_readiness_and_forgets_deaths():
    worn = replace(PartRecord(), deaths=5, was_ready=True).begun(0)

    assert worn.answered(10).died(129).deaths == 6
    assert worn.answered(10).died(130).deaths == 1


def test_part_that_answers_nothing_for_a_minute_hangs():
    record = PartRecord().begun(100).answered(104).answered(114)

    assert not record.hangs(173)
    assert record.hangs(174)
    assert PartRecord().begun(100).hangs(160)


def test_part_that_reads_its_files_anew_is_due_at_once_and_counts_no_death():
    record = PartRecord().begun(0).answered(1).asked_to_end(2)

    assert (record.due_at, record.deaths, record.ready_at, record.was_ready) == (2, 0, None, True)


def test_job_is_done_in_its_turn_and_tells_what_is_new():
    answers = iter([None, {"event": "a"}, {"event": "a"}, {"event": "b"}, None, {"event": "b"}])
    job = Job(10, lambda: next(answers))

    told = [job.news(now) for now in (0, 10, 15, 20, 30, 40, 50)]

    assert told == [None, {"event": "a"}, None, None, {"event": "b"}, None, {"event": "b"}]


def test_pin_is_of_one_bundle_alone():
    pin = pin_of(BUNDLE, None, now=NOW)

    assert is_pinned(pin, BUNDLE)
    assert not is_pinned(pin, AppBundle(b"other code", "0.1.0", "1.41.0"))
    assert not is_pinned(pin, AppBundle(b"code", "0.1.1", "1.41.0"))
    assert not is_pinned(None, BUNDLE)


@pytest.mark.parametrize("seconds", [-86_400, 0, 0.4, 1, 60])
def test_pin_is_later_than_the_one_before_it_whatever_the_clock_says(seconds):
    before = pin_of(BUNDLE, None, now=NOW)

    pin = pin_of(BUNDLE, before, now=NOW + timedelta(seconds=seconds))

    assert pin.issued == NOW + timedelta(seconds=max(1, seconds))


def test_pin_travels_in_an_envelope_that_only_a_trusted_key_opens():
    key, rogue = SigningKey.generate(), SigningKey.generate()
    pin = pin_of(BUNDLE, None, now=NOW + timedelta(microseconds=7))
    trusted = trusted_keys(key.verify_key)

    assert AppPin.from_envelope(pin.signed(key), trusted) == pin
    assert pin.fab_sha256 == BUNDLE.sha256
    with pytest.raises(SignatureError, match="no trusted key"):
        AppPin.from_envelope(pin.signed(rogue), trusted)
    with pytest.raises(WireError):
        AppPin.from_envelope(b"{}", trusted)
