"""The process that is SuperExec: Flower's own, which starts the pinned bundle's ServerApp alone.

The SuperLink's control API asks nobody who he is, so what comes from it may be anybody's. Here it
ends: a task of another kind is not taken, one of another bundle is not started, and Flower's own
programs are out of its reach, so that a later Flower that starts apps by another way starts none.
ADR 0042.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import LaunchResult

from ..errors import ServerError
from ..signer import load_signer
from .app_pin import pinned_bundle
from .folder import open_deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flwr.supercore.superexec.executor import ExecutionSpec

    from .place import Deployment

SERVERAPP = Path(__file__).with_name("pinned_serverapp.py")
FLOWER_LOOP = "flwr.supercore.superexec.run_superexec"
EXECUTOR_OF = "get_executor"
NO_PROGRAMS = os.devnull
"""As `PATH`: no program is found."""


@dataclass(slots=True)
class PinnedExecutor:
    """Starts ServerApps of the pinned bundle, in the place of Flower's executor.

    Attributes:
        pinned: returns the bundle that may run now; raises ServerError where there is none.
        environment: of the ServerApps.
    """

    pinned: Callable[[], bytes]
    environment: dict[str, str]
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: Any
    ) -> tuple[set[TaskType], set[str]]:
        """Return which tasks SuperExec asks for: ServerApps."""
        return set(supported_task_types) & {TaskType.SERVER_APP}, set()

    def wait_for_capacity(self, *_: Any, **__: Any) -> None:
        """Return at once: a process can always be started."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the ServerApp of a task, unless its bundle is not the pinned one."""
        if spec.task_type is not TaskType.SERVER_APP:
            return LaunchResult.failed(f"refused: a {spec.task_type} is no ServerApp")
        if spec.insecure or spec.root_certificates_path is None:
            return LaunchResult.failed("refused: the SuperLink is not known by its certificate")
        try:
            hash_of_pinned = sha256(self.pinned()).hexdigest()
        except ServerError as error:
            return LaunchResult.failed(f"refused: {error}")
        if spec.fab_hash != hash_of_pinned:
            what = f"refused: bundle {spec.fab_hash} is not the pinned bundle {hash_of_pinned}"
            return LaunchResult.failed(what)
        self._start(serverapp_words(spec, hash_of_pinned), spec.token)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Take note of ServerApps that have ended."""
        self._running = [process for process in self._running if process.poll() is None]

    def close(self) -> None:
        """Leave what runs alone: it ends with SuperExec by itself."""

    def _start(self, words: Sequence[str], token: str) -> None:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            # What a ServerApp says goes to the SuperLink, which keeps it by run.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        )
        self._running.append(process)
        if process.stdin is not None:
            # Every account of the machine reads command lines.
            process.stdin.write(token.encode() + b"\n")
            process.stdin.close()


def serverapp_words(spec: ExecutionSpec, pinned: str) -> tuple[str, ...]:
    """Return the command line of a ServerApp; its token goes to its standard input.

    Args:
        spec: as Flower describes it.
        pinned: SHA-256 of the one bundle that it runs, hex.
    """
    return (
        *(sys.executable, "-P", str(SERVERAPP), pinned),
        *("--runtime-api-address", spec.runtime_api_address),
        *("--root-certificates", str(spec.root_certificates_path)),
        *("--parent-pid", str(os.getpid())),
    )


def pinned_by(deployment: Deployment) -> bytes:
    """Return the bundle that a deployment pins now.

    Raises:
        ServerError: it is missing, or not signed by the deployment's key.
    """
    return pinned_bundle(deployment, load_signer(deployment.policy_key).verify_key)


def give_flower(executor: PinnedExecutor) -> None:
    """Put an executor in the place of those that Flower would choose from.

    Raises:
        SystemExit: this Flower has no such place.
    """
    loop = importlib.import_module(FLOWER_LOOP)
    if not hasattr(loop, EXECUTOR_OF):
        sys.exit(f"{FLOWER_LOOP} has no {EXECUTOR_OF}: pip install 'flwr==1.41.*'")

    def chosen(*_: Any, **__: Any) -> PinnedExecutor:
        return executor

    setattr(loop, EXECUTOR_OF, chosen)


def main() -> None:
    """Run SuperExec; the arguments are a deployment's folder and those of `flower-superexec`."""
    from flwr.supercore.cli.flower_superexec import flower_superexec

    deployment = open_deployment(Path(sys.argv[1]))
    executor = PinnedExecutor(lambda: pinned_by(deployment), dict(os.environ))
    os.environ["PATH"] = NO_PROGRAMS
    sys.argv = ["flower-superexec", *sys.argv[2:]]
    give_flower(executor)
    flower_superexec()


if __name__ == "__main__":
    main()
