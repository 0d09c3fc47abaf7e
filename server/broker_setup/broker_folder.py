"""The folder of a fleet's broker: written whole, and read anew by a broker that runs."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.durable_file import write_durably

from ..authority.home import Kind, write_private
from ..authority.services import Service, revocation_lists, service_files
from ..errors import AuthorityError
from ..storage.enrolments import Enrolments
from ..storage.sites import Sites
from .configuration import (
    ACCESS_FILE,
    CERTIFICATE_FILE,
    CONFIGURATION_FILE,
    DEVICE_AUTHORITIES,
    KEY_FILE,
    PROCESS_FILE,
    REVOCATION_FILE,
    BrokerPlace,
    access_list,
    configuration,
)

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from ..authority.home import AuthorityHome

PLACE_FILE = "fedcell-broker.json"
START_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Written:
    """What came of writing a broker's folder.

    Attributes:
        home: the authorities, whose lists have a new number.
        place: where the broker listens and runs.
        num_revoked: devices that are shut out.
    """

    home: AuthorityHome
    place: BrokerPlace
    num_revoked: int


def chosen_place(
    folder: Path, *, host: str | None, port: int | None, user: str | None
) -> BrokerPlace:
    """Return where a broker listens: as it is told now, else as it was told before."""
    before: dict[str, object] = {}
    path = folder / PLACE_FILE
    if path.exists():
        before = json.loads(path.read_bytes())
    told = {"host": host, "port": port, "user": user}
    usual = {"host": "", "port": 8883, "user": _own_user()}
    values = usual | before | {name: value for name, value in told.items() if value is not None}
    return BrokerPlace(
        folder=folder.resolve(),
        host=str(values["host"]),
        port=int(str(values["port"])),
        user=str(values["user"]),
    )


def write_broker_folder(
    connection: Connection, home: AuthorityHome, place: BrokerPlace, *, now: datetime
) -> Written:
    """Write configuration, access list, authorities, lists of what is revoked, and certificate.

    Raises:
        AuthorityError: the folder or the disk refuses, or the broker has no certificate yet.
    """
    folder = place.folder
    revoked = [one.device_id for one in Enrolments(connection).devices() if one.revoked_at]
    home, lists = revocation_lists(connection, home, now=now)
    clients = b"".join(home.trusted_pem(kind) for kind in Kind)
    files = service_files(home, Service.BROKER.value)
    told = {"host": place.host, "port": place.port, "user": place.user}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / KEY_FILE, files.key.read_bytes())
        for name, content in (
            (CERTIFICATE_FILE, files.certificate.read_bytes()),
            (DEVICE_AUTHORITIES, clients),
            (REVOCATION_FILE, lists),
            (ACCESS_FILE, access_list(revoked, Sites(connection).granted()).encode()),
            (CONFIGURATION_FILE, configuration(place).encode()),
            (PLACE_FILE, json.dumps(told).encode() + b"\n"),
        ):
            write_durably(folder / name, content)
        _give_to(folder, place.user)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        remedy = "check the folder, the disk and the user; 'fedcell fleet certify broker'"
        raise AuthorityError(error.filename or folder, what, remedy) from None
    return Written(home, place, len(revoked))


def have_it_read(folder: Path) -> int | None:
    """Have the broker of a folder read its files anew.

    Returns:
        Its process, None where none runs.

    Raises:
        AuthorityError: it runs under another user, who has to send the signal.
    """
    try:
        process = int((folder / PROCESS_FILE).read_text())
        # A broker that was killed leaves the file, and its number may be another program's by now.
        program = str(Path(f"/proc/{process}/exe").readlink())
    except (OSError, ValueError):
        return None
    if not program.removesuffix(" (deleted)").endswith("mosquitto"):
        return None
    _wait_for_handler(process)
    try:
        os.kill(process, signal.SIGHUP)
    except PermissionError:
        what = f"the broker (process {process}) is not yours to tell"
        raise AuthorityError(folder, what, f"as its user: kill -HUP {process}") from None
    return process


def _wait_for_handler(process: int) -> None:
    """Wait until a broker that starts listens to the signal, which ends it before."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/status").read_text()
        except OSError:
            return
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", state, re.MULTILINE)
        if caught is None or int(caught[1], 16) >> (signal.SIGHUP - 1) & 1:
            return
        time.sleep(0.01)


def _own_user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _give_to(folder: Path, user: str) -> None:
    """Let the broker read its files again after it has given up being root."""
    if os.getuid() != 0 or user == "root":
        return
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, user)
