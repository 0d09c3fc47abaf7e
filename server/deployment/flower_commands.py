"""How the processes of a deployment are started: words and environment. No IO."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .place import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .place import Deployment

SUPERLINK, SUPEREXEC, PROXY = "superlink", "superexec", "proxy"
PINNED_SUPEREXEC = f"{__package__}.pinned_superexec"
FEDERATION = "fleet"
"""What `flwr` calls the SuperLink of the deployment."""
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Nothing phones home, and nothing is installed because a run asks for it."""
_INHERITED = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("LD_LIBRARY_PATH", "PYTHONPATH"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    }
)
"""What the processes need of ours beside PATH and `LC_…`: where they are, and how they speak."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process of a deployment.

    Attributes:
        name: what it is called in events and logs.
        words: the command line.
        log: where what it says goes.
    """

    name: str
    words: tuple[str, ...]
    log: Path


def superlink(deployment: Deployment, programs: Path) -> Part:
    """Return the SuperLink: on loopback, TLS, nodes by key, its state on disk.

    Apps run outside of it (`--isolation process`), so that a run outlives it.
    """
    words = (
        *(str(programs / "flower-superlink"), "--host", LOOPBACK),
        *("--port", str(deployment.inner_port)),
        *("--ssl-ca-certfile", str(deployment.inner_authority)),
        *("--ssl-certfile", str(deployment.inner_certificate)),
        *("--ssl-keyfile", str(deployment.inner_key)),
        "--enable-supernode-auth",
        *("--database", str(deployment.state)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(deployment.superexec_secret)),
        "--disable-runtime-dependency-installation",
    )
    return Part(SUPERLINK, words, deployment.logs / f"{SUPERLINK}.log")


def superexec(deployment: Deployment) -> Part:
    """Return SuperExec, which starts a process for each run's ServerApp, of the pinned bundle."""
    words = (
        *(sys.executable, "-P", "-m", PINNED_SUPEREXEC, str(deployment.folder)),
        *("--runtime-api-address", deployment.inner_address),
        *("--root-certificates", str(deployment.inner_authority)),
        *("--superexec-auth-secret-file", str(deployment.superexec_secret)),
    )
    return Part(SUPEREXEC, words, deployment.logs / f"{SUPEREXEC}.log")


def proxy(deployment: Deployment, nginx: Path) -> Part:
    """Return nginx, in the foreground."""
    words = (
        *(str(nginx), "-p", str(deployment.nginx), "-e", "stderr"),
        *("-c", str(deployment.nginx_configuration), "-g", "daemon off;"),
    )
    return Part(PROXY, words, deployment.logs / f"{PROXY}.log")


def environment(
    deployment: Deployment, inherited: Mapping[str, str], programs: Path
) -> dict[str, str]:
    """Return the environment of the processes, which each run's app has, too.

    Args:
        deployment: whose processes they are.
        inherited: of this process; what is not on a list is left out, for it may be secret.
        programs: folder of Flower's programs, which SuperExec finds by PATH.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if name in _INHERITED or name.startswith("LC_")
    }
    path = os.pathsep.join(filter(None, (str(programs), inherited.get("PATH", os.defpath))))
    return kept | _QUIET | {"FLWR_HOME": str(deployment.flwr_home), "PATH": path}


def flower_home(deployment: Deployment) -> str:
    """Return `config.toml` of Flower's home: where `flwr` finds the SuperLink."""
    return "\n".join(
        (
            "# Written by 'fedcell rounds deployment'; it writes this anew.",
            "[superlink]",
            f'default = "{FEDERATION}"',
            "",
            f"[superlink.{FEDERATION}]",
            f'address = "{deployment.inner_address}"',
            f'root-certificates = "{deployment.inner_authority}"',
            "insecure = false",
            "",
        )
    )
