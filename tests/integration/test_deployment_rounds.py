"""Private rounds over a deployment whose processes are killed: the run ends, and ε is right."""

import json
import math
import os
import signal
from contextlib import ExitStack

import pytest

from privacy.accountant import gaussian_epsilon, mu_for
from server.runs.status import read_status
from tests.support.command_line import fedcell
from tests.support.deployments import deployed_fleet, serving
from tests.support.node_deployments import HOST, joined_device, node_process, wait_for

DEVICES = ("d-2", "d-5")
"""Neither is held out."""
NODE = '[node]\npower-supplies = "/nowhere"\ntrain-most-load = 0.0\n'
KEYS = (
    *("rounds=4", "cohort=1", "least-nodes=2", "start-weights=default", "deadline-s=120"),
    *("local-steps=3", "local-rate=0.05"),
)
WAIT_S = 400.0


def rounds_done(run):
    status = read_status(run)
    return 0 if status is None else status.rounds_done


def report_of(run):
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


@pytest.mark.soak
@pytest.mark.nginx
def test_run_of_a_deployment_ends_whatever_is_killed(tmp_path):
    with ExitStack() as running:
        deployed = running.enter_context(deployed_fleet(tmp_path))
        assert deployed.write().code == 0
        served = running.enter_context(serving(deployed.directory))
        for name in DEVICES:
            store = joined_device(
                tmp_path / name,
                deployed.fleet,
                name,
                keys=deployed.server_keys,
                superlink=f"{HOST}:{deployed.port}",
            )
            node = running.enter_context(node_process(store, settings=NODE))
            node.wait_for("connected", seconds=120)
        begun = fedcell("rounds", "begin", deployed.directory, *KEYS, "--json")
        assert begun.code == 0, begun.err
        run = deployed.place.runs / "0001"

        wait_for(lambda: rounds_done(run) >= 1, what="the first round", seconds=WAIT_S)
        os.kill(served.pid("superlink"), signal.SIGKILL)
        wait_for(lambda: rounds_done(run) >= 2, what="the second round", seconds=WAIT_S)
        os.kill(served.pid("superexec"), signal.SIGKILL)
        served.wait_for("run_taken_up", seconds=WAIT_S)
        wait_for(lambda: rounds_done(run) >= 3, what="the third round", seconds=WAIT_S)
        assert served.stop() == 0
        # Flower ends an app by force that takes more than a few seconds to say so itself.
        assert report_of(run)["status"] in {"interrupted", "running"}
        served.start()
        wait_for(
            lambda: report_of(run)["status"] == "finished",
            what="the last round",
            logs=[served.said],
            seconds=WAIT_S,
        )

    report = report_of(run)
    assert [record["index"] for record in report["rounds"]] == [0, 1, 2, 3]
    # 85 % of μ² are for updates, and all of it is used: no round was charged twice, or not at all.
    used = gaussian_epsilon(mu=math.sqrt(0.85) * mu_for(epsilon=2.0, delta=1e-8), delta=1e-8)
    assert report["privacy"]["epsilon_release"] == pytest.approx(used, abs=1e-4)
    kept = fedcell("privacy", "ledger", "--home", deployed.place.privacy_home, "--json")
    assert kept.code == 0, kept.err
    assert kept.json()["entries"] == 4
    assert len(report["parts"]) == 3
