"""Whatever a server asks, in whatever order, and whenever a device dies: one answer for a step."""

import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.own_training import OwnDevice
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.sensing.conditions import ConditionSources
from edge_client.telemetry_store import TelemetryStore
from privacy import Participation
from tests.support.edge_devices import NOW
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import TERMS, agreeing_store, receipt_of, release_of, task_of

POLICY = stream_policy(participations=6, separation=2)
OTHER_POLICY = replace(POLICY, num_rounds=POLICY.num_rounds - 1)
ASKS = st.tuples(
    st.just("ask"),
    st.integers(0, 5),
    st.sampled_from(["same", "same", "same", "recipe", "policy"]),
)
EVENTS = st.one_of(
    ASKS,
    ASKS,
    st.tuples(st.just("receipt"), st.integers(0, 5)),
    st.tuples(st.just("killed while it trains"), st.integers(0, 5)),
)


class Killed(BaseException):
    """Stands for the end of the device's process: nothing catches it."""


def task_for(index, how):
    """Return a task; all but `same` differ in one respect."""
    task = task_of(OTHER_POLICY if how == "policy" else POLICY, index=index)
    if how == "recipe":
        task = replace(task, recipe=replace(task.recipe, learning_rate=0.125))
    return task


class Device:
    """A real device, and what has left it."""

    def __init__(self, folder):
        with agreeing_store(folder) as store:
            self.path = store.path
        self.sent = Counter()

    def happens(self, what, index, how="same"):
        if what == "ask":
            self.asked(index, how)
        elif what == "receipt":
            self.device().keep_receipt(receipt_of(release_of(POLICY, index=index)))
        else:
            self.killed(index)

    def device(self):
        sources = ConditionSources(power_supplies=Path("/nowhere"))
        return OwnDevice(self.path, NOW, (), None, TERMS, sources=sources)

    def killed(self, index):
        before = self.debited()

        def train():
            raise Killed

        try:
            self.device().answer(task_for(index, "same"), train)
        except Killed:
            assert index not in before
        assert self.debited() == before

    def asked(self, index, how):
        before, trained = self.debited(), []

        def train():
            trained.append(np.frombuffer(os.urandom(24), np.int64) | 1)
            return trained[-1]

        total, _ = self.device().answer(task_for(index, how), train)
        assert (total is None) is not bool(trained)
        assert self.debited() == (before if total is None else [*before, index])
        self.sent[index] += total is not None

    def debited(self):
        with TelemetryStore(self.path) as store:
            events = read_device_ledger(self.path, store).events
        return [event.index for event in events if isinstance(event, Participation)]


@pytest.mark.slow
@settings(max_examples=12)
@given(events=st.lists(EVENTS, min_size=2, max_size=9))
def test_at_most_one_vector_leaves_for_a_step_once_and_it_is_debited_before(events):
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder))
        for event in events:
            device.happens(*event)
        debited = device.debited()
    assert len(set(debited)) == len(debited)
    assert {index: times for index, times in device.sent.items() if times} == dict.fromkeys(
        debited, 1
    )
