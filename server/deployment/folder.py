"""The folder of a deployment: written whole, opened by every command that works there."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import socket
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.durable_file import sync_folder, write_durably

from ..authority.home import write_private
from ..signer import load_signer
from .app_bundle import build_bundle
from .app_pin import keep_bundle
from .certificates import keep_certificate, keep_inner_certificate
from .errors import DeploymentError, DeploymentMissingError, DeploymentRefusedError
from .flower_commands import flower_home
from .place import DEPLOYMENT_FILE, Deployment
from .proxy_configuration import proxy_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from models.wire.app_pin import AppPin

    from ..authority.home import AuthorityHome
    from ..signer import Signer

FORMAT = 1
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Written:
    """What came of writing a deployment's folder.

    Attributes:
        deployment: as it is told now.
        made: secrets, certificate and bundle that were made now; what was there was kept.
        pin: of the bundle.
    """

    deployment: Deployment
    made: tuple[str, ...]
    pin: AppPin


def told_before(folder: Path) -> dict[str, Any]:
    """Return what a deployment is told so far, by name; nothing where there is none.

    Raises:
        DeploymentError: what stands there cannot be read.
    """
    path = folder / DEPLOYMENT_FILE
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            what = f"is of format {content['format']!r}, this fedcell reads {FORMAT}"
            raise DeploymentError(path, what, "use the fedcell that wrote it")
        return {name: content[name] for name in _TOLD if name in content}
    except FileNotFoundError:
        return {}
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise DeploymentError(path, what, "check the path and its owner") from None
    except (ValueError, KeyError, TypeError):
        raise DeploymentError(path, "holds something else", _PUT_BACK) from None


def deployment_of(folder: Path, told: Mapping[str, Any]) -> Deployment:
    """Return a deployment of what it is told.

    Raises:
        ValueError: a value is out of bounds.
        KeyError, TypeError: one is missing, or none at all.
    """
    values = {**told, "hosts": tuple(map(str, told["hosts"]))}
    values["policy_key"] = Path(str(told["policy_key"]))
    return Deployment(folder=folder.resolve(), **values)


def open_deployment(folder: Path) -> Deployment:
    """Open a deployment that was written.

    Raises:
        DeploymentMissingError: there is none.
        DeploymentError: it is damaged.
    """
    told = told_before(folder)
    if not told:
        remedy = f"write one: fedcell rounds deployment {folder} --policy-key FILE"
        raise DeploymentMissingError(folder, "there is no deployment", remedy)
    try:
        return deployment_of(folder, told)
    except (ValueError, KeyError, TypeError) as error:
        raise DeploymentError(
            folder / DEPLOYMENT_FILE, f"is damaged ({error})", _PUT_BACK
        ) from None


def write_deployment(
    connection: Connection, home: AuthorityHome, deployment: Deployment, *, now: datetime
) -> Written:
    """Write everything that a deployment needs; secrets that are there stay as they are.

    Args:
        connection: to the hub's database.
        home: the fleet's authorities.
        deployment: what it is told.
        now: aware time.

    Raises:
        DeploymentRefusedError: devices do not trust the policy key.
        DeploymentError: the folder or the disk refuses.
    """
    signer = trusted_signer(deployment, home)
    made = []
    with _named_refusals(deployment.folder):
        for path in _folders(deployment):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        deployment.folder.chmod(0o700)
        for secret in (deployment.superexec_secret, deployment.stream_key):
            if not secret.exists():
                write_private(secret, secrets.token_bytes(SECRET_BYTES))
                made.append(secret.name)
            secret.chmod(0o600)
        if keep_certificate(connection, home, deployment, now=now):
            made.append(deployment.certificate.name)
        if keep_inner_certificate(deployment, now=now):
            made.append(deployment.inner_certificate.name)
        pin, is_new = keep_bundle(deployment, build_bundle(), signer.key, now=now)
        if is_new:
            made.append(deployment.bundle.name)
        user, with_ipv6 = _user_of_workers(), _has_ipv6()
        text = proxy_configuration(deployment, user=user, with_ipv6=with_ipv6)
        write_durably(deployment.nginx_configuration, text.encode())
        write_durably(deployment.flwr_home / "config.toml", flower_home(deployment).encode())
        write_private(deployment.file, deployment_json(deployment))
        sync_folder(deployment.folder)
    return Written(deployment, tuple(made), pin)


def trusted_signer(deployment: Deployment, home: AuthorityHome) -> Signer:
    """Return the key that signs policies and pins, where the fleet's devices trust it.

    Raises:
        KeyFileError: it cannot be read.
        DeploymentRefusedError: `fedcell fleet init` was told another one.
    """
    signer = load_signer(deployment.policy_key)
    key = signer.verify_key
    if home.fleet.server_keys.get(key.key_id) != key.to_bytes().hex():
        what = f"devices of the fleet do not trust this key ({key.key_id})"
        remedy = "name the key whose .public.json 'fedcell fleet init --server-key' was given"
        raise DeploymentRefusedError(deployment.policy_key, what, remedy)
    return signer


_TOLD = tuple(entry.name for entry in fields(Deployment) if entry.name != "folder")
_PUT_BACK = "put its copy back, or write it anew: fedcell rounds deployment"


def _folders(deployment: Deployment) -> tuple[Path, ...]:
    return (
        deployment.folder,
        deployment.flwr_home,
        deployment.nginx,
        deployment.bundle.parent,
        deployment.logs,
        deployment.runs,
        deployment.begun,
    )


def _user_of_workers() -> str | None:
    """Return as whom nginx's workers run where root starts them; the folder is root's own then."""
    return pwd.getpwuid(0).pw_name if os.getuid() == 0 else None


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


def deployment_json(deployment: Deployment) -> bytes:
    """Return what `deployment.json` holds."""
    told = {name: value for name, value in asdict(deployment).items() if name in _TOLD}
    told["policy_key"] = str(deployment.policy_key)
    return json.dumps({"format": FORMAT, **told}, indent=1).encode() + b"\n"


@contextmanager
def _named_refusals(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        remedy = "check the folder and the disk"
        raise DeploymentError(error.filename or folder, what, remedy) from None
