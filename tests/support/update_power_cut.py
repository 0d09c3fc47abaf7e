"""A device that updates, starts and commits in a circle, killed at a chosen moment.

Run as a program: for each point it forks a device that ends itself by SIGKILL at its n-th step of
writing (open for writing, sync, rename, removal), looks at what is left, and prints one line of
JSON. The next device goes on with the same folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any

from edge_client.model_store import ModelStore
from edge_client.updates import bundle_gate
from models.bundle import load_bundle
from tests.support.update_bundles import resigned, trusted_keys, try_out_here, variant

NUM_VERSIONS = 4
STEPS_OF_A_CIRCLE = 360
WATCHED = frozenset({"open", "os.remove", "os.rename", "os.mkdir", "fcntl.flock", "os.listdir"})
"""Audit events at which a device may end; `os.fsync` has none and is counted beside them."""


class Countdown:
    """Ends this process by SIGKILL at its n-th watched event."""

    def __init__(self, steps: int, folder: Path) -> None:
        self._left, self._folder, self._ends = steps, str(folder), os.getpid()
        sync = os.fsync

        def counted(handle: int) -> None:
            self.step()
            sync(handle)
            self.step()

        os.fsync = counted
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and (event == "fcntl.flock" or self._folder in str(arguments[0])):
            self.step()

    def step(self) -> None:
        """Count one step."""
        self._left -= 1
        if self._left <= 0 and os.getpid() == self._ends:
            os.kill(self._ends, signal.SIGKILL)


def live(folder: Path, sources: list[Path], said: int, random: Random) -> None:
    """Install, start, report and fail to report, until the countdown ends."""
    models = ModelStore(folder)

    def say(**facts: object) -> None:
        os.write(said, (json.dumps(facts) + "\n").encode())

    while True:
        source = random.choice(sources)
        installed = models.install(source, trusted_keys=trusted_keys(), allow_rolled_back=True)
        say(installed=installed.digest)
        for _ in range(random.choice([1, 1, 2, 4])):
            models = ModelStore(folder)
            models.begin_boot()
            models.open()
        if random.random() < 0.7 and models.commit():
            running = models.committed()
            say(committed=None if running is None else running.digest)


def end_one(folder: Path, sources: list[Path], random: Random) -> list[dict[str, Any]]:
    """Let a device live until it is killed; return what it had said until then."""
    steps = random.randrange(1, STEPS_OF_A_CIRCLE)
    seed = random.randrange(2**32)
    heard, said = os.pipe()
    device = os.fork()
    if device == 0:
        os.close(heard)
        Countdown(steps, folder)
        live(folder, sources, said, Random(seed))
        os._exit(1)
    os.close(said)
    with os.fdopen(heard) as lines:
        facts = [json.loads(line) for line in lines]
    _, status = os.waitpid(device, 0)
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise RuntimeError(f"the device ended by itself ({status})")
    return facts


def main() -> None:
    """Kill a device again and again: folder, number of points, seed."""
    base, num_points, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    bundle_gate.try_out = try_out_here
    random, folder = Random(seed), base / "device.db.models"
    from models.bundle import write_bundle

    sources = []
    for number in range(NUM_VERSIONS):
        sources.append(base / f"{number}.zip")
        write_bundle(resigned(variant(number)), sources[-1])
    known = {load_bundle().digest} | {resigned(variant(n)).digest for n in range(NUM_VERSIONS)}
    committed: str | None = None
    for point in range(num_points):
        facts = end_one(folder, sources, random)
        possible = [committed]
        for fact in facts:
            possible = [fact["committed"]] if "committed" in fact else possible
            possible += [fact["installed"]] if "installed" in fact else []
        models = ModelStore(folder)
        running = models.open()
        try_out_here(running)
        found = models.committed()
        print(
            json.dumps(
                {
                    "point": point,
                    "steps": len(facts),
                    "known": running.digest in known,
                    "possible": possible,
                    "committed": None if found is None else found.digest,
                    "files": sorted(path.name for path in folder.glob("*.zip")),
                }
            ),
            flush=True,
        )
        committed = None if found is None else found.digest


if __name__ == "__main__":
    main()
