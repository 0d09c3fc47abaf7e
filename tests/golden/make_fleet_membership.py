"""Records a fleet's folder and a device's membership of version 1, and the database between them.

Made by the code of that version (`python -m tests.golden.make_fleet_membership`); what is there is
never overwritten. The keys in it were made for this and are no secrets.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_client.provisioning.device_certificate import checked_certificate
from edge_client.provisioning.membership import Membership, write_membership
from server.authority.home import Kind
from tests.support.secured_fleets import NOW, DeviceOnPaper, secured_fleet

FOLDER = Path(__file__).parent / "fleet_v1"
SERVICE = "https://127.0.0.1:8443"


def main() -> None:
    if FOLDER.exists():
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with secured_fleet(folder) as fleet:
            device = DeviceOnPaper("device-1")
            answer = fleet.enrol(device)
            shutil.copytree(fleet.home.folder, FOLDER / "authority")
            authorities = fleet.home.trusted_pem(Kind.SERVER).decode()
        with closing(sqlite3.connect(folder / "hub.db")) as connection:
            (FOLDER / "hub.sql").write_text("\n".join(connection.iterdump()) + "\n")
    (FOLDER / "identity.hex").write_text(device.signing_key.to_bytes().hex() + "\n")
    (FOLDER / "device.db.fleet").mkdir()
    facts = checked_certificate(answer.certificate, key_pem=device.key, device_id="device-1")
    membership = Membership(
        folder=FOLDER / "device.db.fleet",
        device_id="device-1",
        service=SERVICE,
        broker=answer.broker,
        server_keys=answer.server_keys,
        number=1,
        serial=facts.serial,
        not_before=facts.not_before,
        not_after=NOW + timedelta(days=30),
        server_time=NOW,
    )
    write_membership(
        membership,
        certificate=answer.certificate,
        key=device.key,
        authorities=authorities,
        supernode="",
    )


if __name__ == "__main__":
    main()
