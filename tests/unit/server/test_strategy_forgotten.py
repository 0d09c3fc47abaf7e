"""Devices that know of steps that the home has forgotten, and streams that find nobody to invite.

Neither destroys anything: one node must never end a run, and what was put back can be put right.
"""

import shutil
from collections import Counter

import numpy as np
import pytest

from models.wire.envelope import SigningKey
from models.wire.rounds import DeviceReceipt
from server.engine.cohorts import invitation_order
from server.engine.rounds import FleetSpentError
from server.privacy_home.counts_file import transaction
from server.privacy_home.home_files import COUNTS_FILE
from server.privacy_home.home_repair import take_over
from server.privacy_home.privacy_errors import StreamRefusedError
from server.privacy_home.privacy_ledger import open_home
from server.streams.stream_key import KEY_FILE
from tests.support.federated_rounds import (
    SENT,
    config_of,
    contribution,
    honest,
    resumed,
    roster_of,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory

SIGNER = SigningKey.generate()
LIE = 10**6


class Fleet:
    """Devices with ledgers of their own behind any node: each step is debited once, and told."""

    def __init__(self, *, liars=(), from_step=0):
        self.debited, self.liars, self.from_step = {}, set(liars), from_step
        self.while_asked = None

    def __call__(self, message):
        if message.metadata.message_type != "train":
            return []
        while_asked, self.while_asked = self.while_asked, None
        if while_asked is not None:
            while_asked()
        task = task_of(message)
        lines = []
        for device_id, pseudonym in zip(task.device_ids, task.pseudonyms, strict=True):
            steps = self.debited.setdefault(device_id, set())
            steps.add((task.stream, task.index))
            is_lie = device_id in self.liars and task.index >= self.from_step
            receipt = DeviceReceipt(
                pseudonym=pseudonym,
                participations=LIE if is_lie else len(steps),
                mu_squared=0.01,
                head="ab" * 32,
            )
            lines.append(receipt.to_line())
        number = len(task.device_ids)
        sum_of_all = number * SENT
        return [
            contribution(
                sum_of_all,
                stream=task.stream,
                index=task.index,
                num_devices=number,
                receipts=tuple(lines),
            )
        ]


def rounds_of(tmp_path, *, nodes=(1,), run="run", home=None, **changes):
    values = {"epsilon": 2.0, "num_rounds": 4, "cohort_size": 2, "max_participations": 20}
    config = config_of(stream=run, **(values | changes))
    return rounds_over(list(nodes), tmp_path, config=config, signing_key=SIGNER, run=run, home=home)


def taken_up(rounds, *, nodes=None):
    """The run in another process, with its signer."""
    if nodes is not None:
        rounds.roster = roster_of(list(nodes))
    again = resumed(rounds)
    again.signing_key = SIGNER
    again.__post_init__()
    return again


def put_back(copy, folder):
    """Write a copy's bytes into the files that differ: none of them is another file."""
    for path in folder.iterdir():
        old = (copy / path.name).read_bytes()
        if path.read_bytes() != old:
            path.write_bytes(old)


def test_home_that_is_put_back_under_a_run_is_told_and_its_newest_copy_goes_on(tmp_path):
    home, fleet = tmp_path / "home", Fleet()
    first = rounds_of(tmp_path, run="first", home=home, num_rounds=2)

    def another_run_and_then_an_older_copy():
        shutil.copytree(home, tmp_path / "older")
        second = rounds_of(tmp_path, run="second", home=home, num_rounds=3)
        second.run(GridInMemory({1: fleet}))
        second.stream.close()
        shutil.copytree(home, tmp_path / "newest")
        put_back(tmp_path / "older", home)

    grid = GridInMemory({1: fleet})
    first.on_round = lambda _: setattr(fleet, "while_asked", another_run_and_then_an_older_copy)
    with pytest.raises(StreamRefusedError, match="more steps than this home knows") as refused:
        first.run(grid)
    assert refused.value.exit_code == 5
    assert len(first.stream.home.entries) == 1
    assert (first.stream.folder / KEY_FILE).exists()
    # The words were not kept, so that they are told again for as long as the home is an older one.
    assert first.stream.home.life_counts(["1-0", "1-1"]).participations.tolist() == [2, 2]
    with pytest.raises(StreamRefusedError, match="more steps than this home knows"):
        first.run(grid)

    put_back(tmp_path / "newest", home)
    first.on_round = None
    again = taken_up(first)
    assert again.run(grid)
    assert len(again.stream.home.entries) == 5
    assert again.stream.home.life_counts(["1-0", "1-1"]).participations.tolist() == [5, 5]


@pytest.mark.slow
def test_fleet_that_once_trained_outside_goes_on_in_one_home_for_ever(tmp_path):
    fleet = Fleet()
    alone = rounds_of(tmp_path, run="alone", num_rounds=2)
    assert alone.run(GridInMemory({1: fleet}))
    for run in ("first", "second", "third"):
        rounds = rounds_of(tmp_path, run=run, home=tmp_path / "home")
        assert rounds.run(GridInMemory({1: fleet}))
        rounds.stream.close()
    home = open_home(tmp_path / "home")
    assert len(home.entries) == 12
    assert home.life_counts(["1-0", "1-1"]).participations.tolist() == [14, 14]


def test_fleet_that_trains_elsewhere_at_the_same_time_needs_an_operators_word(tmp_path):
    home, fleet = tmp_path / "home", Fleet()
    first = rounds_of(tmp_path, run="first", home=home, num_rounds=1)
    assert first.run(GridInMemory({1: fleet}))
    assert rounds_of(tmp_path, run="elsewhere", num_rounds=2).run(GridInMemory({1: fleet}))
    second = rounds_of(tmp_path, run="second", home=home)
    with pytest.raises(StreamRefusedError, match="--accept-moved"):
        second.run(GridInMemory({1: fleet}))
    take_over(home, head=first.stream.entry.hash)
    third = rounds_of(tmp_path, run="third", home=home)
    assert third.run(GridInMemory({1: fleet}))


def test_stream_goes_on_where_devices_say_what_the_home_counted(tmp_path):
    rounds = rounds_of(tmp_path)
    assert rounds.run(GridInMemory({1: Fleet()}))
    assert len(rounds.stream.home.entries) == 4


@pytest.mark.parametrize("from_step", [1, 2])
def test_one_liar_in_a_cohort_of_newcomers_ends_nothing(tmp_path, from_step):
    nodes = range(1, 11)
    ids = roster_of(nodes).device_ids
    liar = ids[invitation_order(ids, stream="run")[0]]
    rounds = rounds_of(tmp_path, nodes=nodes, num_rounds=6, cohort_size=7)
    fleet = Fleet(liars=[liar], from_step=from_step)
    assert rounds.run(GridInMemory(dict.fromkeys(nodes, fleet)))
    assert len(rounds.stream.home.entries) == 6


def test_lie_that_takes_a_device_out_of_a_whole_fleet_leaves_the_key_for_others_to_come(tmp_path):
    fleet = Fleet(liars=["2-1"])
    rounds = rounds_of(tmp_path, nodes=[1, 2], cohort_size=4)
    with pytest.raises(FleetSpentError, match="over more devices or with fewer"):
        rounds.run(GridInMemory({1: fleet, 2: fleet}))
    assert (rounds.stream.folder / KEY_FILE).exists()

    again = taken_up(rounds, nodes=[1, 2, 3])
    assert again.run(GridInMemory(dict.fromkeys([1, 2, 3], fleet)))
    asked = Counter(steps for device in fleet.debited.values() for steps in device)
    assert set(asked.values()) == {4}


def test_one_device_that_says_its_life_is_spent_leaves_a_place_empty_and_ends_nothing(tmp_path):
    """Ten devices in cohorts of five: nobody is to spare."""
    nodes = [1, 2, 3, 4, 5]
    fleet = Fleet(liars=["2-1"])
    rounds = rounds_of(tmp_path, nodes=nodes, num_rounds=8, cohort_size=5)
    records = []
    rounds.on_round = records.append
    assert rounds.run(GridInMemory(dict.fromkeys(nodes, fleet)))
    assert [record.invited for record in records].count(4) == 3
    assert {record.invited for record in records} == {4, 5}
    assert [entry.fields["event"]["cohort_size"] for entry in rounds.stream.home.entries] == [5] * 8
    assert {len(steps) for steps in fleet.debited.values()} == {1, 4}


def test_spent_fleet_ends_with_its_weights_and_keeps_its_key(tmp_path):
    rounds = rounds_of(tmp_path)
    rounds.stream.home.note_said({"1-0": (99, 0.01)})
    with pytest.raises(FleetSpentError, match="fedcell rounds cancel"):
        rounds.run(GridInMemory({1: honest}))
    assert (rounds.stream.folder / KEY_FILE).exists()
    assert np.isfinite(rounds.weights()).all()


def test_words_are_kept_with_how_far_they_are_ahead_and_lost_answers_do_not_count(tmp_path):
    home = open_home(tmp_path)
    home.note_said({"a": (3, 0.1)})
    assert home.standings(["a", "b"])["a"].surplus == 3
    home.note_said({"a": (2, 0.1)})
    assert (home.standings(["a"])["a"].surplus, home.standings(["b"])["b"].surplus) == (3, None)
    with transaction(tmp_path / COUNTS_FILE) as connection:
        connection.execute("UPDATE devices SET participations = 5")
    # Behind by two answers that were lost, and ahead by one of them that was debited late.
    home.note_said({"a": (6, 0.2)})
    standing = home.standings(["a"])["a"]
    assert (standing.counted, standing.surplus) == (5, 3)
    assert (standing.grows_with(8), standing.grows_with(9)) == (False, True)
