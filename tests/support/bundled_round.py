"""One real round between the two Flower apps, with nothing but an unpacked bundle to import.

Run by path as `bundled_round.py BUNDLE WORK RUN_CONFIG`, in an interpreter that does not know the
checkout; prints the files that the project's modules came from.
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

bundle, work, declared = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, str(bundle))

import numpy as np  # noqa: E402 - what follows is imported by way of the path above
from flwr.app import Context, RecordDict  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

import edge_client.flower_app  # noqa: E402
import server.flower_app  # noqa: E402
from edge_client.store.mailbox import Purpose  # noqa: E402
from edge_client.telemetry_store import TelemetryStore  # noqa: E402
from models.telemetry import DeviceId, DeviceProfile, Reading  # noqa: E402
from models.training.local_epochs import new_flat_weights  # noqa: E402
from server.signer import make_key_file  # noqa: E402

NUM_DAYS = 300


class OneNode:
    """Flower's grid with one node, which answers at once."""

    def __init__(self, context):
        self.context, self.replies = context, []

    def get_node_ids(self):
        return [1]

    def push_messages(self, messages):
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"message-{number}"
            self.replies.append(edge_client.flower_app.app(message=message, context=self.context))
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, _message_ids):
        replies, self.replies = self.replies, []
        return replies


def context_of(*, node_config, run_config):
    return Context(
        run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config=run_config
    )


def filled_store(path):
    now = datetime.now(UTC)
    profile = DeviceProfile(
        device_id=DeviceId("device-1"),
        device_model="Meter 3",
        chemistry="NMC111",
        design_capacity_mah=3000.0,
        end_of_life_capacity_mah=2400.0,
        manufactured_at=now - timedelta(days=NUM_DAYS + 1),
    )
    with TelemetryStore.create(path, profile=profile) as store:
        readings = [
            Reading(at=now - timedelta(days=NUM_DAYS - day), full_charge_capacity_mah=2900.0 - day)
            for day in range(NUM_DAYS)
        ]
        store.record_many(readings, now=now)
        store.set_consent(Purpose.TRAINING, granted=True, now=now)
    return path


TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
np.savez(work / "start.npz", weights=new_flat_weights(seed=1))
node = context_of(
    node_config={"telemetry-db": str(filled_store(work / "device.db"))}, run_config={}
)
make_key_file(work / "policy.pem")
(work / "stream.operator").write_bytes(bytes(32))
(work / "stream.operator").chmod(0o600)
run = declared | {
    "stream-key-file": str(work / "stream.operator"),
    "policy-key": str(work / "policy.pem"),
    "privacy-home": str(work / "home"),
    "start-weights": str(work / "start.npz"),
    "out": str(work / "run"),
    "rounds": 1,
    "cohort": 1,
}
server.flower_app.app(grid=OneNode(node), context=context_of(node_config={}, run_config=run))
ours = [
    module.__file__
    for name, module in sys.modules.items()
    if name.partition(".")[0] in {"server", "edge_client", "models", "privacy", "simulations"}
]
print(json.dumps(ours))
