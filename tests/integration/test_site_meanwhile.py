"""What a gateway says while the agent's loop is at work on the step before."""

import threading
import time
from dataclasses import replace

import pytest

from edge_client.link.counters import AgentCounters
from edge_client.link.listener import Listener
from edge_client.link.traffic import TrafficMeter
from edge_client.site_rounds.kept_step import Ending, StepState, keep_step
from edge_client.store.mailbox import Mailbox
from models.wire.envelope import VerifyKey, trusted_keys
from models.wire.sealing import OpeningKey
from models.wire.site_rounds import signed_by_gateway
from models.wire.topics import Down, down
from tests.support.brokers import wait_until
from tests.support.edge_devices import NOW
from tests.support.site_devices import debited, site_rounds, site_store, step_of
from tests.support.site_power_cut import DEVICE, DirectLink, Gateway
from tests.support.training_tasks import KEYS


class Rig:
    """A device's part in rounds over a link that delivers at once; a test turns its loop."""

    def __init__(self, path):
        self.path, self.gateway, self.woken = path, Gateway(None), threading.Event()
        self.rounds = site_rounds(path)
        self.link = DirectLink(self.gateway.material.parts())
        listener = Listener(
            path=path,
            device_id=DEVICE,
            trusted=trusted_keys(*(VerifyKey.from_bytes(key) for key in KEYS.values())),
            clock=lambda: NOW,
            counters=AgentCounters(),
        )
        meter = TrafficMeter(1 << 20, clock=lambda: NOW)
        self.rounds.listen(self.link, listener, wake=self.woken.set, meter=meter)

    def hear(self, *, key=None, **changes):
        offer = self.gateway.offer_of(**changes)
        topic = down(DEVICE, Down.ROUND)
        self.link.handlers[topic](topic, signed_by_gateway(offer, key or self.gateway.signing_key))

    def turn(self):
        self.rounds.turn(elapsed_s=time.monotonic())

    def turn_until(self, condition):
        assert wait_until(lambda: (self.turn(), condition())[1])

    def waiting(self):
        with Mailbox(self.path) as mailbox:
            return len(mailbox.outbox())


@pytest.fixture
def rig(tmp_path):
    return Rig(site_store(tmp_path / "device"))


def test_offer_that_comes_as_the_one_before_is_closed_is_not_lost(rig):
    rig.hear()
    rig.turn_until(lambda: step_of(rig.path).state is StepState.ANSWERED)
    rig.turn()
    long_ago = rig.rounds._open.received
    over = replace(rig.rounds._open, received=replace(long_ago, elapsed_s=long_ago.elapsed_s - 1e4))
    with Mailbox(rig.path) as mailbox:
        keep_step(mailbox, over)
    rig.rounds._open = over
    # The link's thread keeps the next one after the loop has looked, and before it closes this one.
    rig.hear(index=1)
    rig.rounds._has_news = False
    rig.turn()
    assert (step_of(rig.path).step.index, step_of(rig.path).state) == (1, StepState.OFFERED)
    rig.rounds._has_news = True
    rig.turn_until(lambda: step_of(rig.path).state is StepState.ANSWERED)
    assert debited(rig.path) == [0, 1]


def test_answer_to_a_step_that_was_left_meanwhile_never_leaves(rig):
    rig.hear()
    rig.turn()
    # The answer is being made, or done, and not put out: another step is at hand by then.
    rig.hear(index=1)
    rig.turn_until(lambda: step_of(rig.path).state is StepState.ANSWERED)
    assert step_of(rig.path).step.index == 1
    assert rig.waiting() == len(step_of(rig.path).parts)
    assert debited(rig.path) == [0, 1]


def test_answer_that_was_sealed_to_a_gateways_old_key_never_leaves(rig):
    rig.hear()
    rig.turn()
    rig.gateway.opening_key = OpeningKey.from_bytes(bytes(range(9, 41)))
    rig.hear()
    rig.turn_until(lambda: step_of(rig.path).state is StepState.ANSWERED)
    answer = rig.gateway.opened_from(
        rig.gateway.offer_of(), rig.path, list(step_of(rig.path).parts)
    )
    # It was debited for the answer that is lost.
    assert (answer.values.any(), debited(rig.path)) == (False, [0])


def test_steps_end_is_kept_where_nothing_comes_between(rig):
    rig.hear(material="0" * 64, deadline_s=1)
    rig.turn_until(lambda: step_of(rig.path).ending is Ending.NO_MATERIAL)
    assert debited(rig.path) == []
