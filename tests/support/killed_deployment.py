"""A deployment whose processes are killed at random while it carries a run of rounds.

Run as a program: `python -m tests.support.killed_deployment FOLDER ROUNDS KILLS SEED`. What a
service manager would do (start the device's command again) is done here; nothing else is helped
with. It prints one JSON object: what was killed when, and how the run and all ledgers ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from privacy import events_of, read_ledger, release_epsilon
from tests.support.whole_deployments import (
    WholeDeployment,
    children_of,
    report_of,
    whole_deployment,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICES = ("d-4", "d-5")
"""Neither is held out."""
PARTS = ("superlink", "supernode", "supernode", "superlink", "command", "executor")
"""What is killed, with how often it is chosen."""
LONGEST_PAUSE_S = 12.0
RESTART_S = 1.0
MOST_S = 3000.0


@dataclass(frozen=True)
class Kill:
    """One process that was killed.

    Attributes:
        part: what it was.
        at_s: seconds since the run was begun.
        rounds: how many rounds the run had behind it.
    """

    part: str
    at_s: float
    rounds: int


@dataclass
class Killer:
    """Kills processes of a deployment, spread over the rounds of its run."""

    deployment: WholeDeployment
    run: Path
    rounds: int
    kills: int
    random: Random
    done: list[Kill] = field(default_factory=list)

    def carry_on(self) -> float:
        """Kill until all kills are done, wait for the run's end, and return the seconds it took."""
        began = time.monotonic()
        next_s = began + self.random.uniform(0.0, LONGEST_PAUSE_S)
        while not self._is_over():
            now = time.monotonic()
            assert now - began < MOST_S, f"the run does not end: {report_of(self.run)}"
            self._start_what_is_gone()
            rounds = len(report_of(self.run).get("rounds", ()))
            if now >= next_s and self._may_kill(rounds) and self._kill(now - began, rounds):
                next_s = now + self.random.uniform(0.0, LONGEST_PAUSE_S)
            time.sleep(0.2)
        return time.monotonic() - began

    def _may_kill(self, rounds: int) -> bool:
        """As many kills a round as it takes to be done before the last round."""
        due = (rounds + 1) * self.kills / max(self.rounds - 1, 1)
        return len(self.done) < min(self.kills, due)

    def _kill(self, at_s: float, rounds: int) -> bool:
        device = self.random.choice(DEVICES)
        part = self.random.choice(PARTS)
        pid = self._pid_of(part, device)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        named = part if part == "superlink" else f"{part} of {device}"
        self.done.append(Kill(named, round(at_s, 1), rounds))
        return True

    def _pid_of(self, part: str, device: str) -> int | None:
        if part == "superlink":
            return self.deployment.pid_of("superlink")
        process = self.deployment.nodes[device].process
        if process is None or process.poll() is not None:
            return None
        if part == "command":
            return process.pid
        try:
            children = children_of(process.pid)
        except FileNotFoundError:
            return None
        return children.get("rounds_node.supernode" if part == "supernode" else "flower-superexec")

    def _start_what_is_gone(self) -> None:
        for node in self.deployment.nodes.values():
            if node.process is not None and node.process.poll() is not None:
                assert node.process.returncode == -signal.SIGKILL, node.said.read_text()
                time.sleep(RESTART_S)
                node.start()

    def _is_over(self) -> bool:
        return report_of(self.run).get("status") in {"finished", "interrupted", "cancelled"}


def killed_run(folder: Path, *, rounds: int, kills: int, seed: int) -> dict[str, Any]:
    """Carry a run out under kills, and return what came of it."""
    said = {
        "rounds": rounds,
        "cohort": len(DEVICES),
        "start-weights": "default",
        "deadline-s": 120,
        "local-steps": 1,
    }
    with whole_deployment(folder, *DEVICES) as deployment:
        begun = deployment.begin(said, "--wait", "0")
        killer = Killer(deployment, Path(begun["run"]), rounds, kills, Random(seed))
        took_s = killer.carry_on()
        report = report_of(killer.run)
    home = deployment.place / "home"
    entries = read_ledger(
        (home / "ledger.jsonl").read_text(), head=report["privacy"]["ledger_head"]["hash"]
    )
    return {
        "status": report["status"],
        "ended_because": report.get("ended_because"),
        "took_s": round(took_s, 1),
        "replied": [record["replied"] for record in report["rounds"]],
        "epsilon_told": report["privacy"]["epsilon_release"],
        "epsilon_of_ledger": release_epsilon(events_of(entries), delta=report["config"]["delta"]),
        "entries": len(entries),
        "devices": {name: _ledger_of(node.store) for name, node in deployment.nodes.items()},
        "kills": [asdict(kill) for kill in killer.done],
    }


def _ledger_of(store: Path) -> dict[str, Any]:
    told = subprocess.run(
        [sys.executable, "-m", "edge_client.cli", "--store", str(store), "ledger", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    account = json.loads(told.stdout)
    return {
        "is_sound": account["is_sound"],
        "participations": account["participations"],
        "epsilon": account["epsilon"],
        "steps": [(step["stream"], step["index"]) for step in account["steps"]],
        "receipts_that_differ": account["receipts_that_differ"],
    }


def main(arguments: list[str], say: Callable[[str], None] = print) -> None:
    """Run it, and print what came of it."""
    folder, rounds, kills, seed = arguments
    found = killed_run(Path(folder), rounds=int(rounds), kills=int(kills), seed=int(seed))
    say(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
