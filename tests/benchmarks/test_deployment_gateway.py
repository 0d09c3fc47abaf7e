"""How long is a round of a thousand devices behind one gateway, and what does the gateway take?

Real SuperLink, ServerApp, SuperNode and Mosquitto; simulated devices, which open, train, sign, seal
and send like real ones and share both cores with everything else. The round's time is the server's
own, from asking the nodes to the release. Memory is the proportional share (PSS) of the gateway's
SuperNode, its SuperExec and the ClientApp's process together, at its greatest.
"""

import json

from tests.support.figures import Figures
from tests.support.gateway_runs import gateway_run

NUM_DEVICES = 1_000
MOST_SECONDS, MOST_MB = 60.0, 500.0


def test_a_round_of_a_thousand_devices_behind_one_gateway(tmp_path):
    with gateway_run(tmp_path, num_devices=NUM_DEVICES) as deployed:
        report = deployed.run()
        memory_mb = deployed.most_pss_mb
        status = deployed.site.folder / "gateway.db.gateway" / "status.json"
        step = json.loads(status.read_text())["steps"][-1]

    (record,) = report["rounds"]
    assert (report["status"], record["replied"]) == ("finished", NUM_DEVICES)
    figures = Figures("deployment")
    figures.add(
        "round_of_1000_devices_behind_a_gateway",
        record["seconds"],
        unit="s",
        target=MOST_SECONDS,
        better="lower",
        against=f"the gateway's own part: {step['seconds']:.1f} s",
    )
    figures.add(
        "memory_of_a_gateway_of_1000_devices",
        memory_mb,
        unit="MB of PSS",
        target=MOST_MB,
        better="lower",
        against="SuperNode, SuperExec and ClientApp together",
    )

    assert record["seconds"] <= MOST_SECONDS
    assert memory_mb <= MOST_MB
