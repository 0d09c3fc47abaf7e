"""A stream that can have no further step, or that devices show to be forgotten, loses its key."""

import numpy as np
import pytest

from models.wire.envelope import SigningKey
from models.wire.rounds import DeviceReceipt
from server.privacy_home.privacy_errors import StreamRefusedError
from server.rounds import FleetSpentError
from server.run_folder import RunFolderError
from server.streams.stream_key import KEY_FILE
from tests.support.federated_rounds import (
    SENT,
    config_of,
    contribution,
    honest,
    resumed,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory


def saying(participations):
    """A node whose devices all say that they have taken part so often, times the step's number."""

    def answer(message):
        if message.metadata.message_type != "train":
            return []
        task = task_of(message)
        lines = [
            DeviceReceipt(
                pseudonym=name,
                participations=participations * (task.index + 1),
                mu_squared=0.01,
                head="ab" * 32,
            ).to_line()
            for name in task.pseudonyms
        ]
        number = len(task.device_ids)
        return [
            contribution(number * SENT, index=task.index, num_devices=number, receipts=tuple(lines))
        ]

    return answer


def rounds_with_receipts(tmp_path):
    config = config_of(epsilon=2.0, num_rounds=4, cohort_size=2, max_participations=20)
    return rounds_over([1], tmp_path, config=config, signing_key=SigningKey.generate())


def test_stream_ends_before_a_release_where_most_devices_know_of_more_steps(tmp_path):
    rounds = rounds_with_receipts(tmp_path)
    with pytest.raises(StreamRefusedError, match="more steps than this home knows") as refused:
        rounds.run(GridInMemory({1: saying(3)}))

    assert refused.value.exit_code == 5
    assert len(rounds.stream.home.entries) == 1
    assert rounds.stream.home.life_counts(["1-0", "1-1"]).participations.tolist() == [6, 6]
    assert not (rounds.stream.folder / KEY_FILE).exists()
    with pytest.raises(RunFolderError, match="no stream that could go on"):
        resumed(rounds)


def test_stream_goes_on_where_devices_say_what_the_home_counted(tmp_path):
    rounds = rounds_with_receipts(tmp_path)
    assert rounds.run(GridInMemory({1: saying(1)}))
    assert len(rounds.stream.home.entries) == 4


def test_stream_of_a_spent_fleet_leaves_no_key_and_no_sum(tmp_path):
    rounds = rounds_with_receipts(tmp_path)
    rounds.stream.home.note_said({"1-0": (99, 0.01)})
    with pytest.raises(FleetSpentError, match="open a new one"):
        rounds.run(GridInMemory({1: honest}))
    assert not (rounds.stream.folder / KEY_FILE).exists()
    assert np.isfinite(rounds.weights()).all()
