"""A bundle of the real ClientApp and a ServerApp that times rounds, each when it is told to.

The same bytes run in any deployment, so that two of them can take turns at rounds.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.cli.build import build_fab_from_files

from server.deployment.app_bundle import package_files
from tests.support.node_deployments import TinyBundle, lines_of, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

MANIFEST = """[project]
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedcell"

[tool.flwr.app.components]
serverapp = "rounds_in_turn.apps:server"
clientapp = "edge_client.flower_app:app"

[tool.flwr.app.config]
folder = ""
"""
APPS = '''"""Asks all nodes for their devices whenever a file says so, and writes what it took."""
import json
import time
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

server = ServerApp()


@server.main()
def main(grid, context):
    folder, turn = Path(context.run_config["folder"]), 0
    while not (folder / "end").exists():
        if not (folder / f"turn-{turn}").exists():
            time.sleep(0.05)
            continue
        nodes = list(grid.get_node_ids())
        began = time.monotonic()
        messages = [
            Message(RecordDict(), dst_node_id=node, message_type="query", group_id=str(turn))
            for node in nodes
        ]
        waiting = set(grid.push_messages(messages))
        devices = []
        while waiting:
            for reply in grid.pull_messages(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                known = reply.content.config_records if reply.has_content() else {}
                devices += known["devices"]["device_ids"] if "devices" in known else ["failed"]
            time.sleep(0.1)
        took_s = time.monotonic() - began
        with (folder / "rounds.jsonl").open("a") as file:
            file.write(json.dumps({"took_s": took_s, "devices": sorted(devices)}) + "\\n")
        turn += 1
'''
PACKAGES = ("edge_client/", "models/", "privacy/")


def bundle_in_turns() -> TinyBundle:
    """Make the bundle."""
    files: dict[str, bytes | Path] = {
        "pyproject.toml": MANIFEST.encode(),
        "rounds_in_turn/__init__.py": b"",
        "rounds_in_turn/apps.py": APPS.encode(),
        **{name: path for name, path in package_files().items() if name.startswith(PACKAGES)},
    }
    content, _ = build_fab_from_files(files)
    return TinyBundle(bytes(content), "1.0.0")


@dataclass
class Turns:
    """The rounds of one deployment, begun one by one."""

    folder: Path
    devices: Sequence[str]
    logs: Sequence[Path]
    number: int = 0

    def take(self, *, seconds: float = 180.0) -> float:
        """Begin a round, and return the seconds that the server counted."""
        (self.folder / f"turn-{self.number}").touch()
        self.number += 1
        rounds = self.folder / "rounds.jsonl"
        wait_for(
            lambda: len(lines_of(rounds)) >= self.number,
            what=f"round {self.number} in {self.folder}",
            logs=self.logs,
            seconds=seconds,
        )
        last = lines_of(rounds)[-1]
        assert last["devices"] == sorted(self.devices), json.dumps(last)
        return float(str(last["took_s"]))

    def end(self) -> None:
        (self.folder / "end").touch()
        time.sleep(0.2)
