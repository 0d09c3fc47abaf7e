"""A deployment served: its folder checked, its processes and jobs put together."""

from __future__ import annotations

import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .certificates import require_certificates
from .errors import DeploymentError, DeploymentMissingError
from .flower_commands import environment, proxy, superexec, superlink
from .nodes import nodes_event
from .serving import Job, Supervisor, serving_alone
from .systemd import notify_ready
from .taking_up import RunKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any

    from .flower_commands import Part
    from .place import Deployment

NGINX_INSTALL = "apt-get install --no-install-recommends nginx"
_SERVER_PROGRAMS = "/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin"
SOON = timedelta(days=30)
DAY_S = 86_400.0
RUNS_EVERY_S = 15.0


def serve_deployment(
    deployment: Deployment,
    *,
    with_proxy: bool,
    takes_up_runs: bool,
    nodes_every_s: float,
    inherited: Mapping[str, str],
    clock: Callable[[], datetime],
    is_stopped: Callable[[], bool],
    tell: Callable[[Mapping[str, Any]], None],
) -> None:
    """Serve a deployment until asked to stop.

    Args:
        deployment: what is served.
        with_proxy: whether nginx is one of its processes.
        takes_up_runs: whether a run whose process has gone is taken up again.
        nodes_every_s: seconds between two looks at who is enrolled.
        inherited: environment of this process.
        clock: gives now, aware UTC.
        is_stopped: asked again and again; true ends it.
        tell: is told each event.

    Raises:
        DeploymentMissingError: a program is not installed.
        DeploymentError: a file is missing or damaged.
        DeploymentRefusedError: the certificate is over.
        ServingError: a port is taken, another process serves, or a part does not start.
    """
    programs = Path(sys.executable).parent
    parts = _parts(deployment, programs, with_proxy=with_proxy)
    _require_files(deployment)
    require_certificates(deployment, now=clock())

    def say(event: Mapping[str, Any]) -> None:
        tell({"at": clock().isoformat(timespec="seconds"), **event})
        if event["event"] == "ready":
            notify_ready(inherited.get("NOTIFY_SOCKET", ""))

    def watch_certificate() -> Mapping[str, Any] | None:
        return certificate_event(deployment, now=clock())

    jobs = [
        Job(nodes_every_s, lambda: nodes_event(deployment)),
        Job(DAY_S, watch_certificate),
    ]
    if takes_up_runs:
        jobs.append(Job(RUNS_EVERY_S, RunKeeper(deployment, clock).turn))
    with serving_alone(deployment.lock):
        Supervisor(
            deployment=deployment,
            parts=parts,
            environment=environment(deployment, inherited, programs),
            tell=say,
            is_stopped=is_stopped,
            jobs=jobs,
        ).run()


def _parts(deployment: Deployment, programs: Path, *, with_proxy: bool) -> list[Part]:
    """Return the parts of a deployment, in the order in which they are started.

    Raises:
        DeploymentMissingError: a program is not installed.
    """
    parts = [superlink(deployment, programs), superexec(deployment)]
    for part in parts:
        if not Path(part.words[0]).exists():
            what = "Flower is not installed here"
            raise DeploymentMissingError(part.words[0], what, 'pip install "fedcell[train]"')
    if with_proxy:
        parts.append(proxy(deployment, find_nginx()))
    return parts


def certificate_event(deployment: Deployment, *, now: datetime) -> Mapping[str, Any] | None:
    """Return what to tell of a certificate that ends soon, None where it does not."""
    try:
        end = require_certificates(deployment, now=now)
    except DeploymentError as error:
        return {"event": "certificate_over", "why": str(error)}
    if end - now >= SOON:
        return None
    remedy = f"fedcell rounds deployment {deployment.folder}"
    return {"event": "certificate_ends", "on": end.isoformat(), "remedy": remedy}


def find_nginx() -> Path:
    """Return nginx's path.

    Raises:
        DeploymentMissingError: it is not installed.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path=_SERVER_PROGRAMS)
    if found is None:
        what = "is not installed, and keeps nodes out of Flower's control API"
        raise DeploymentMissingError("nginx", what, NGINX_INSTALL)
    return Path(found)


def _require_files(deployment: Deployment) -> None:
    """Refuse a folder that lacks what its processes read.

    Raises:
        DeploymentError: a file is not there.
    """
    for path in (
        deployment.key,
        deployment.authorities,
        deployment.inner_key,
        deployment.inner_authority,
        deployment.superexec_secret,
        deployment.nginx_configuration,
        deployment.flwr_home / "config.toml",
        deployment.pin,
    ):
        if not path.is_file():
            remedy = f"write it anew: fedcell rounds deployment {deployment.folder}"
            raise DeploymentError(path, "is missing", remedy)
