"""`fedcell-device run` in processes of their own, without torch, and what they take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.edge_devices import NOW
from tests.support.system_parts import REPOSITORY
from tests.support.training_tasks import KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has held at once, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has taken, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[str]:
    """Return the processes that a process has begun and that still live."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


class DeviceProcess:
    """A device's agent in a process that cannot load what learns; it reports before it is ready.

    Without a broker it goes by its membership of a fleet.
    """

    def __init__(
        self,
        path: Path,
        broker: Any,
        *options: str,
        training_path: str = "closed_form",
        keys: Mapping[str, bytes] = KEYS,
        now: str | None = NOW.isoformat(),
    ) -> None:
        trusted = path.with_name("keys.json")
        trusted.write_text(json.dumps({name: key.hex() for name, key in keys.items()}))
        hardware = path.with_name("hardware")
        hardware.write_text("4711")
        node = {"power-supplies": "nowhere", "training-path": training_path}
        settings = path.with_name("device.toml")
        settings.write_text("".join(["[node]\n", *(f'{k} = "{v}"\n' for k, v in node.items())]))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.torchless", "run", "--json"),
                *("--store", str(path), "--config", str(settings)),
                *("--hardware-id-file", str(hardware)),
                *_in_the_clear(broker, trusted),
                *(() if now is None else ("--now", now)),
                *options,
            ],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def __enter__(self) -> Self:
        stdout, stderr = self.process.stdout, self.process.stderr
        assert stdout is not None
        assert stderr is not None
        report = stdout.readline()
        assert report, stderr.read()
        assert json.loads(report)["event"] == "report"
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is not None:
            self.process.communicate()
            return
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said


def _in_the_clear(broker: Any, trusted: Path) -> list[str]:
    if broker is None:
        return []
    place = ["--broker", f"{broker.host}:{broker.port}", "--mqtt-tls", "off"]
    return [*place, "--server-key", str(trusted)]
