"""A ClientApp whose block asks others: the sum passes through as it is, and opens nothing else."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_client.flower_app import client_app
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    RECEIPT_MESSAGE,
    RECEIPT_RECORD,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    LocalRecipe,
    NodeFailure,
    ReleaseReceipt,
    RoundTask,
)

RELEASED = ReleaseReceipt(stream="s", index=2, entry="{}")


class Site:
    """Two devices that somebody else asks."""

    def __init__(self):
        self.asked, self.told, self.looks = [], [], 0

    @property
    def device_ids(self):
        self.looks += 1
        return ("meter-1", "meter-2")

    def relay_task(self, task, weights, *, waited_s):
        self.asked.append((task, weights, waited_s))
        return np.full(weights.size, 7, np.int64), 1, ("a receipt",)

    def keep_receipt(self, receipt):
        self.told.append(receipt)


@pytest.fixture
def site():
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    return Site()


def answer(site, kind, **records):
    app = client_app(lambda _context: site)
    message = Message(RecordDict(records), dst_node_id=1, message_type=kind)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    return app(message, context)


def task(*devices):
    return RoundTask(
        stream="s",
        index=2,
        clipping_norm=0.5,
        cohort_size=5,
        device_ids=devices,
        recipe=LocalRecipe(),
    )


def asked(site, *devices):
    weights = ArrayRecord({FLAT_ARRAY: Array(np.ones(3, np.float32))})
    plain = ConfigRecord({**task(*devices).to_plain()})
    return answer(site, "train", **{WEIGHTS_RECORD: weights, TASK_RECORD: plain})


def test_a_relayed_sum_passes_through_with_its_devices_and_receipts(site):
    reply = asked(site, "meter-1", "meter-2")
    said = Contribution.from_plain(reply.content.config_records[CONTRIBUTION_RECORD])
    total = reply.content.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
    (told, weights, waited_s), *_ = site.asked

    assert total.tolist() == [7, 7, 7]
    assert said == Contribution(stream="s", index=2, num_devices=1, receipts=("a receipt",))
    assert told == task("meter-1", "meter-2")
    assert weights.dtype == np.float32
    assert 0 <= waited_s < 60
    assert site.looks == 1


def test_devices_of_others_are_not_relayed(site):
    reply = asked(site, "meter-3")

    assert reply.error.reason == NodeFailure.TASK_REFUSED.value
    assert site.asked == []


def test_the_devices_and_their_releases_pass_through(site):
    named = answer(site, "query").content.config_records[DEVICES_RECORD]
    answer(site, RECEIPT_MESSAGE, **{RECEIPT_RECORD: ConfigRecord({**RELEASED.to_plain()})})

    assert list(named["device_ids"]) == ["meter-1", "meter-2"]
    assert site.told == [RELEASED]
