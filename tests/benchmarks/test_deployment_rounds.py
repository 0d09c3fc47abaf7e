"""What does our deployment add to a round of bare Flower, with the same app and two nodes?

Both are deployed as they would be, with TLS, each part a process of its own. Bare: SuperLink and
SuperNodes as Flower starts them. Ours: `fedcell rounds serve` (proxy, SuperLink, SuperExec) and
`fedcell-device node`, with authenticated nodes and a pin. They take turns, at random moments of the
nodes' three seconds between two looks.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from server.deployment.control_api import control_api
from server.deployment.folder import open_deployment
from server.signer import load_signer
from tests.support.bundled_benchmark import Turns, bundle_in_turns
from tests.support.figures import Figures
from tests.support.node_deployments import (
    BIN,
    HOST,
    QUIET,
    SuperLink,
    joined_device,
    rounds_fleet,
    wait_for,
)
from tests.support.secured_fleets import free_port
from tests.support.system_parts import NGINX
from tests.support.whole_deployments import whole_deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

FIGURES = Figures("deployment")
DEVICES = ("d-4", "d-5")
ROUNDS = 7
MOST_RATIO = 1.2
NODE_POLL_S = 3.0
AGAINST = "bare Flower 1.41 with the same app, TLS, SuperLink and two SuperNodes, in turns"
USUAL = {name: value for name, value in QUIET.items() if not name.endswith("POLL_INTERVAL")}


class OpenSuperLink(SuperLink):
    """A SuperLink as Flower starts it, that lets any node in."""

    AUTHENTICATES = ()


@contextmanager
def bare_flower(folder: Path, bundle, turns: Path) -> Iterator[tuple[Turns, list[int]]]:
    """Run a SuperLink and two SuperNodes as Flower starts them."""
    with rounds_fleet(folder / "fleet") as fleet, ExitStack() as running:
        link = OpenSuperLink(folder / "superlink", fleet, environment=USUAL)
        link.certify()
        link.start()
        running.callback(link.stop)
        logs, nodes = [link.log], []
        for name in DEVICES:
            store = joined_device(folder / name, fleet, name)
            logs.append(folder / f"{name}.log")
            nodes.append(running.enter_context(bare_node(folder, link, store, logs[-1])))
        ids = [node.pid for node in nodes]
        link.run(bundle, {"folder": str(turns)})
        yield Turns(turns, DEVICES, logs), ids


@contextmanager
def bare_node(folder: Path, link: SuperLink, store: Path, log: Path):
    config = folder / f"{store.stem}.toml"
    config.write_text(f'telemetry-db = "{store}"\npower-supplies = "/nowhere"\n')
    home = folder / f"flwr-{store.stem}"
    with log.open("wb") as said:
        node = subprocess.Popen(
            [
                *(BIN / "flower-supernode", "--superlink", link.address),
                *("--root-certificates", link.folder / "authorities.pem"),
                *("--host", HOST, "--port", str(free_port()), "--node-config", config),
            ],
            stdout=said,
            stderr=said,
            # As ours are: on a busy machine Linux shares the processor among sessions.
            start_new_session=True,
            env={
                **os.environ,
                **USUAL,
                "FLWR_HOME": str(home),
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            },
        )
    try:
        wait_for(
            lambda: b"SuperNode ID" in log.read_bytes(), what=store.stem, logs=[log], seconds=120
        )
        yield node
    finally:
        node.terminate()
        node.wait(40)


@contextmanager
def our_deployment(folder: Path, bundle, turns: Path) -> Iterator[tuple[Turns, list[int]]]:
    """Run what our commands bring up, with the bundle of the benchmark pinned."""
    pin = folder / "pin.json"
    settings = f'app-pin = "{pin}"\n'
    with whole_deployment(
        folder, *DEVICES, node_settings=settings, environment=USUAL
    ) as deployment:
        place = open_deployment(deployment.place)
        later = datetime.now(UTC) + timedelta(minutes=1)
        pin.write_bytes(bundle.pin(load_signer(place.policy_key).key, issued=later))
        with control_api(place) as api:
            api.start_run(bundle.content, sha256=bundle.sha256, said={"folder": str(turns)})
        ids = [node.process.pid for node in deployment.nodes.values()]
        yield Turns(turns, DEVICES, deployment.logs()), ids


def memory_mb(pid: int) -> float:
    """Return what a process and its children hold, shared pages divided among those that share."""
    own = 0.0
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                own = float(line.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # an app that ended meanwhile
    return own + sum(memory_mb(int(child)) for child in children)


@pytest.mark.skipif(NGINX.find() is None, reason=NGINX.is_missing_line())
def test_a_round_takes_little_longer_than_in_bare_flower(tmp_path):
    bundle, jitter = bundle_in_turns(), random.Random(11)
    took: dict[str, list[float]] = {"bare": [], "ours": []}
    held: dict[str, float] = {}
    for name in took:
        (tmp_path / name / "turns").mkdir(parents=True)
    with ExitStack() as running:
        begun = {
            name: running.enter_context(deploy(tmp_path / name, bundle, tmp_path / name / "turns"))
            for name, deploy in (("bare", bare_flower), ("ours", our_deployment))
        }
        for turns, _ in begun.values():
            turns.take()
        for turn in range(ROUNDS):
            order = list(begun) if turn % 2 else list(reversed(begun))
            for name in order:
                time.sleep(jitter.uniform(0.0, NODE_POLL_S))
                took[name].append(begun[name][0].take())
        for name, (turns, ids) in begun.items():
            held[name] = statistics.median(memory_mb(pid) for pid in ids)
            turns.end()

    ratios = [ours / bare for ours, bare in zip(took["ours"], took["bare"], strict=True)]
    ratio = statistics.median(took["ours"]) / statistics.median(took["bare"])
    FIGURES.add(
        "round with two nodes, ours / bare Flower",
        ratio,
        unit="ratio of medians",
        target=MOST_RATIO,
        better="lower",
        spread=(min(ratios), max(ratios)),
        against=AGAINST,
    )
    for name, seconds in took.items():
        FIGURES.add(
            f"round with two nodes, {name}",
            statistics.median(seconds),
            unit="s",
            target=None,
            better="lower",
            spread=(min(seconds), max(seconds)),
            against=AGAINST,
        )
        FIGURES.add(
            f"memory of a node that waits, {name}",
            held[name],
            unit="MB",
            target=None,
            better="lower",
            against="proportional set size of the node's processes",
        )
    assert ratio <= MOST_RATIO
