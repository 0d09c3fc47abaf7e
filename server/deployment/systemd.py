"""The unit by which systemd runs a deployment, and how systemd learns that it is ready."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .place import Deployment

UNIT = "fedcell-rounds.service"


def unit(deployment: Deployment, *, program: Path, user: str) -> str:
    """Return the text of a unit file.

    The whole group is ended with the service, so that no run outlives it unseen. What a run names
    outside of the folder (another privacy home, a reference fleet) needs a drop-in of its own.

    Args:
        deployment: what it serves.
        program: path of `fedcell`.
        user: account that owns the folder, and may read the policy key and the database.
    """
    return f"""# Written by 'fedcell rounds unit'.
[Unit]
Description=Federated rounds: SuperLink, SuperExec and their proxy
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
TimeoutStartSec=180
ExecStart={program} rounds serve --json {deployment.folder}
# What is told wrong does not mend itself: wrong usage, damaged, missing, refused.
RestartPreventExitStatus=2 3 4 5
Restart=always
RestartSec=5
KillMode=mixed
TimeoutStopSec=60
User={user}
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={" ".join(map(str, _written(deployment)))}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def _written(deployment: Deployment) -> tuple[Path | str, ...]:
    """Return the folders that the service writes to: its own, and that of an SQLite database."""
    file = deployment.database.removeprefix("sqlite:///")
    if file == deployment.database:
        return (deployment.folder,)
    return (deployment.folder, file.rpartition("/")[0] or "/")


def notify_ready(address: str) -> None:
    """Tell systemd that the service is ready; nothing happens where nobody asked.

    Args:
        address: what systemd put into NOTIFY_SOCKET, empty where it did not.
    """
    if not address:
        return
    place = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.sendto(b"READY=1", place)
