"""The bound on one owner's devices holds over every resume of a run, whoever is there by then."""

import json
import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from models.training.local_epochs import new_flat_weights
from models.wire.rounds import LocalRecipe
from server.engine.flower_messages import Roster
from server.engine.rounds import FleetSpentError, NoAnswerError, RoundsConfig
from server.flower_app import PlannedRun, carry_out
from server.privacy_home.privacy_errors import StreamRefusedError
from server.privacy_home.privacy_ledger import open_home
from server.runs.folder import RunFolder
from tests.support.federated_rounds import task_of
from tests.support.flower_grid import GridInMemory

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DEVICES = [f"device-{number:02}" for number in range(12)]
OWNERS = {device: f"owner-{number % 3}" for number, device in enumerate(DEVICES)}
CONFIG = RoundsConfig(
    stream="owned",
    num_rounds=4,
    cohort_size=3,
    clipping_norm=1.0,
    epsilon=2.0,
    delta=1e-8,
    recipe=LocalRecipe(least_rows=1, record_noise_multiplier=0.0),
    max_devices_per_owner=2,
    deadline_s=0.1,
)


def run_until_stopped(folder, devices, *, owners=None, is_resumed=False):
    """Invite to one more round and stop, as an interrupted run leaves it."""
    stop, indices = threading.Event(), set()

    def says_nothing(message):
        indices.add(task_of(message).index)
        if len(indices) > is_resumed:
            stop.set()
        return []

    run = PlannedRun(
        config=CONFIG,
        folder=RunFolder(folder, is_resumed=is_resumed),
        start=new_flat_weights(seed=1),
        owners=owners or {},
        is_resumed=is_resumed,
    )
    roster = Roster.of({1: devices})
    carry_out(run, GridInMemory({1: says_nothing}), roster=roster, stop=stop, clock=lambda: NOW)


def devices_per_owner(folder):
    invited = open_home(folder).keep_owners("owned", {}, most_devices=2).invited
    return Counter(OWNERS[device] for device in invited)


@pytest.mark.parametrize("again", [None, OWNERS])
def test_a_resumed_run_keeps_the_bound(tmp_path, again):
    run_until_stopped(tmp_path / "run", DEVICES, owners=OWNERS)
    with suppress(FleetSpentError, NoAnswerError):
        for first in (0, 3, 6):
            there = DEVICES[first:] + DEVICES[:first]
            run_until_stopped(tmp_path / "run", there[:9], owners=again, is_resumed=True)

    found = devices_per_owner(tmp_path / "run")
    assert sum(found.values()) >= 4
    assert max(found.values()) <= 2
    report = json.loads((tmp_path / "run" / "run.json").read_text())
    assert report["privacy"]["policy"]["max_devices_per_owner"] == 2


def test_a_run_goes_on_with_no_other_owners(tmp_path):
    run_until_stopped(tmp_path / "run", DEVICES, owners=OWNERS)
    with pytest.raises(StreamRefusedError, match="file of owners"):
        run_until_stopped(
            tmp_path / "run", DEVICES, owners={"device-00": "another"}, is_resumed=True
        )
