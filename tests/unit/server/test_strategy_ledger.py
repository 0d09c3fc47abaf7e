"""What rounds write and sign: ledger, noise, key, receipts, and the budget over several runs."""

import pytest
from flwr.app import RecordDict

from edge_client.privacy.task_policy import verified_policy
from models.wire.envelope import SigningKey, open_signed, trusted_keys
from models.wire.rounds import (
    RECEIPT_MESSAGE,
    RECEIPT_RECORD,
    DeviceReceipt,
    ReleaseReceipt,
)
from privacy import (
    CorrelatedRelease,
    events_of,
    release_epsilon,
)
from privacy.ledger import entry_from_line
from server.engine.rounds import FleetSpentError
from tests.support.federated_rounds import (
    SENT,
    config_of,
    contribution,
    honest,
    honest_to,
    ledger_of,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory


def test_everything_is_durable_before_a_task_leaves_and_before_noise_is_drawn(tmp_path):
    seen = []

    def watch(message):
        task = task_of(message)
        counted = rounds.stream.home.life_counts(task.device_ids).participations
        seen.append((task.index, len(ledger_of(rounds)), counted.tolist()))
        return honest(message)

    rounds = rounds_over([1, 2], tmp_path, config=config_of(epsilon=2.0, num_rounds=3))
    rounds.run(GridInMemory({1: watch, 2: watch}))

    assert [(index, entries) for index, entries, _ in seen] == [
        (0, 0),
        (0, 0),
        (1, 1),
        (1, 1),
        (2, 2),
        (2, 2),
    ]
    assert all(counted == [index + 1] * 2 for index, _, counted in seen)


def test_the_ledger_alone_gives_the_epsilon_that_was_reported(tmp_path):
    records = []
    config = config_of(epsilon=2.0, num_rounds=4, cohort_size=2)
    rounds = rounds_over([1, 2], tmp_path, config=config, on_round=records.append)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    entries = ledger_of(rounds)
    assert {entry.kind for entry in entries} == {"stream"}
    events = events_of(entries)
    policy = rounds.stream.terms.policy
    assert events[3] == CorrelatedRelease(
        stream="test",
        index=3,
        noise_multiplier=policy.privacy.noise_multiplier,
        clipping_norm=1.0,
        cohort_size=2,
        bands=2,
        min_separation=2,
        most_participations=2,
        policy_digest=policy.digest,
        epsilon=2.0,
        delta=policy.privacy.delta,
        update_share=policy.privacy.update_share,
        max_participations=policy.privacy.max_participations,
    )
    for record, count in zip(records, range(1, 5), strict=True):
        derived = release_epsilon(events[:count], delta=1e-6)
        assert record.epsilon_release == pytest.approx(derived)
    assert records[-1].epsilon_release == pytest.approx(2.0, rel=1e-6)


def test_independent_noise_is_stamped_for_comparison_and_never_for_release(tmp_path):
    config = config_of(epsilon=2.0, noise="independent")
    rounds = rounds_over([1, 2], tmp_path, config=config)
    rounds.run(GridInMemory({1: honest, 2: honest}))
    assert {entry.kind for entry in ledger_of(rounds)} == {"comparison"}
    assert {entry.event.mechanism for entry in ledger_of(rounds)} == {"independent_gaussian"}
    assert not (rounds.stream.folder / "stream.key").exists()


def test_the_key_is_destroyed_once_every_step_is_released(tmp_path):
    config = config_of(epsilon=2.0, num_rounds=2)
    rounds = rounds_over([1, 2], tmp_path, config=config)
    assert (rounds.stream.folder / "stream.key").exists()
    rounds.run(GridInMemory({1: honest, 2: honest}))
    assert not (rounds.stream.folder / "stream.key").exists()
    assert not (rounds.stream.folder / "aggregate.bin").exists()


def test_runs_over_one_home_add_up_and_a_device_at_its_cap_is_not_invited_again(tmp_path):
    home = tmp_path / "home"
    records = []
    for run in ("first", "second"):
        config = config_of(stream=run, epsilon=2.0, num_rounds=2, max_participations=4)
        rounds = rounds_over(
            [1, 2], tmp_path, config=config, home=home, run=run, on_round=records.append
        )
        rounds.run(GridInMemory({1: honest_to(run), 2: honest_to(run)}))
        rounds.stream.close()
    assert [record.most_participations for record in records] == [1, 2, 1, 2]
    assert records[-1].epsilon_release == pytest.approx(2.0, rel=1e-6)
    assert records[1].epsilon_release < 1.5

    config = config_of(stream="third", epsilon=2.0, num_rounds=2, max_participations=4)
    third = rounds_over([1, 2], tmp_path, config=config, home=home, run="third")
    with pytest.raises(FleetSpentError, match="round 0: 0 of 4 devices may be invited"):
        third.run(GridInMemory({1: honest, 2: honest}))
    assert len(third.stream.home.entries) == 4


def test_a_device_that_says_it_has_spent_more_is_scheduled_by_its_word(tmp_path):
    key = SigningKey.generate()

    def says(message):
        if message.metadata.message_type != "train":
            return []
        task = task_of(message)
        lines = [
            DeviceReceipt(
                pseudonym=name, participations=9, mu_squared=0.5, head="ab" * 32
            ).to_line()
            for name in task.pseudonyms[:1]
        ]
        return [contribution(SENT, index=task.index, receipts=("{", *lines))]

    # The device says 9; the policies of this home let it take part in 2.
    config = config_of(epsilon=2.0, num_rounds=2, cohort_size=2, deadline_s=0.05)
    rounds = rounds_over([1], tmp_path, config=config, signing_key=key)
    with pytest.raises(FleetSpentError, match="1 of 2 devices"):
        rounds.run(GridInMemory({1: says}))
    assert rounds.stream.home.life_counts(["1-0", "1-1"]).participations.tolist() == [2, 1]


def test_policy_and_receipts_travel_signed(tmp_path):
    key = SigningKey.generate()
    trusted = trusted_keys(key.verify_key)
    tasks, receipts = [], []

    def node(message):
        if message.metadata.message_type == RECEIPT_MESSAGE:
            record = message.content.config_records[RECEIPT_RECORD]
            receipts.append(ReleaseReceipt.from_plain(record))
            return [RecordDict()]
        tasks.append(task_of(message))
        return honest(message)

    config = config_of(epsilon=2.0)
    rounds = rounds_over([1, 2], tmp_path, config=config, signing_key=key)
    assert rounds.run(GridInMemory({1: node, 2: node}))

    keys = {key.verify_key.key_id: key.verify_key.to_bytes()}
    assert {verified_policy(task.policy, keys) for task in tasks} == {rounds.stream.terms.policy}
    names = [name for task in tasks for name in task.pseudonyms]
    assert len(set(names)) == len(names) == 8
    said = [open_signed(one.entry.encode(), trusted).decode() for one in receipts]
    assert [entry_from_line(line, index=0).hash for line in said[::2]] == [
        entry.hash for entry in ledger_of(rounds)
    ]
    assert [one.index for one in receipts] == [0, 0, 1, 1]
