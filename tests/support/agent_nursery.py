"""Starts agents in processes of their own, quickly: imports once, forks one for each line it reads.

python -m tests.support.agent_nursery STORE BUNDLE HOST PORT SHOWN-FILE
Each agent runs until it is killed; the notices that it shows are lines of the file. Its process id
is printed; the next line on standard input waits for its end.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import edge_client.link.config_receiver
import edge_client.notices
import models.device_report
import models.inference
import models.wire.link
from edge_client.agent import AgentParts, AgentPlan, run_agent
from edge_client.client import EdgeClient
from models.wire.envelope import SigningKey
from tests.support.edge_devices import NOW
from tests.support.line_bundle import trusted_keys

SERVER_KEY = SigningKey.from_bytes(bytes(range(32)))
LOADED = (
    edge_client.link.config_receiver,
    edge_client.notices,
    models.device_report,
    models.wire.link,
)


def run_one(store: Path, bundle: Path, host: str, port: int, shown: Path) -> None:
    """Be an agent until killed."""
    key = SERVER_KEY.verify_key

    def show(message_id: str, _notice: object) -> None:
        with shown.open("a") as file:
            file.write(f"{message_id}\n")

    with EdgeClient(store, bundle, trusted_keys=trusted_keys()) as client:
        run_agent(
            client,
            broker=(host, port),
            server_keys={key.key_id: key.to_bytes()},
            plan=AgentPlan(poll_s=0.02),
            clock=lambda: NOW,
            on_start=lambda _agent: None,
            on_report=lambda _report: None,
            show=show,
            parts=AgentParts(),
        )


def main() -> None:
    store, bundle, host, port, shown = sys.argv[1:]
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                run_one(Path(store), Path(bundle), host, int(port), Path(shown))
            finally:
                os._exit(1)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
