"""Whatever a server asks, in whatever order, and whenever a device dies: one answer for a step."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.own_training import OwnDevice
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.sensing.conditions import ConditionSources
from edge_client.store.mailbox import KEPT_ANSWER_FACT
from edge_client.telemetry_store import TelemetryStore
from models.wire.rounds import task_digest
from privacy import Participation
from tests.support.edge_devices import NOW
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import TERMS, agreeing_store, receipt_of, release_of, task_of

POLICY = stream_policy(participations=6, separation=2)
OTHER_POLICY = replace(POLICY, num_rounds=POLICY.num_rounds - 1)
WEIGHTS = np.zeros(3, np.float32)
ASKS = st.tuples(
    st.just("ask"),
    st.integers(0, 5),
    st.sampled_from(["same", "same", "same", "weights", "recipe", "policy"]),
)
EVENTS = st.one_of(
    ASKS,
    ASKS,
    st.tuples(st.just("receipt"), st.integers(0, 5)),
    st.tuples(st.just("power cut before the answer was kept")),
    st.tuples(st.just("backup of the answer put back")),
)


def asked_of(index, how):
    """Return a task and its weights; all but `same` differ in one respect."""
    policy = OTHER_POLICY if how == "policy" else POLICY
    task = task_of(policy, index=index)
    if how == "recipe":
        task = replace(task, recipe=replace(task.recipe, learning_rate=0.125))
    return task, WEIGHTS + 1 if how == "weights" else WEIGHTS


class Device:
    """A real device, and what has left it."""

    def __init__(self, folder):
        with agreeing_store(folder) as store:
            self.path = store.path
        self.sent = {}
        self.backup = None

    def happens(self, what, index=0, how="same"):
        if what == "ask":
            self.asked(index, how)
        elif what == "receipt":
            self.device().keep_receipt(receipt_of(release_of(POLICY, index=index)))
        else:
            with TelemetryStore(self.path) as store:
                kept = store.fact(KEPT_ANSWER_FACT)
                is_cut = what.startswith("power cut")
                store.keep_fact(KEPT_ANSWER_FACT, None if is_cut else self.backup)
            self.backup = kept if self.backup is None else self.backup

    def device(self):
        sources = ConditionSources(power_supplies=Path("/nowhere"))
        return OwnDevice(self.path, NOW, (), None, TERMS, sources=sources)

    def asked(self, index, how):
        task, weights = asked_of(index, how)
        before, trained = self.debited(), []

        def train():
            trained.append(np.frombuffer(os.urandom(24), np.int64) | 1)
            return trained[-1]

        digest = task_digest(task, weights)
        total, _ = self.device().answer(task, train, digest=digest)
        after = self.debited()
        if total is None:
            assert after == before
            return
        key = (index, digest)
        vectors = {step: vector for (step, _), vector in self.sent.items()}
        # The first vector that leaves for a step is the only one, and only for the same task.
        assert index not in vectors or (key in self.sent and not trained)
        assert self.sent.setdefault(key, total.tobytes()) == total.tobytes()
        assert after == (before if not trained else [*before, index])

    def debited(self):
        with TelemetryStore(self.path) as store:
            events = read_device_ledger(self.path, store).events
        return [event.index for event in events if isinstance(event, Participation)]


@settings(max_examples=12)
@given(events=st.lists(EVENTS, min_size=2, max_size=9))
def test_at_most_one_vector_leaves_for_a_step_and_it_is_debited_once(events):
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder))
        for event in events:
            device.happens(*event)
        debited = device.debited()
    assert len(set(debited)) == len(debited)
    assert {index for index, _ in device.sent} <= set(debited)
