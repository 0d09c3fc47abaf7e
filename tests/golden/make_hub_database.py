"""Records a hub's database as SQL, one file a revision: a device, a summary, a notice that waits.

From revision 0004 on the device is enrolled, too.

Each was made by the code of its revision (`python -m tests.golden.make_hub_database`); a file that
is there is never overwritten.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from server.storage.database import open_database
from server.storage.enrolments import EnrolledDevice, Enrolments
from tests.support.hubs import HubOnPaper
from tests.support.wire_messages import ISSUED, birth, summary

FOLDER = Path(__file__).parent / "hubs"
NEWEST = "0004"
"""The last revision that was recorded; raise it before a migration is added."""
FILES = sorted(FOLDER.glob("revision_*.sql"))
ENROLLED = EnrolledDevice(
    device_id="device-1",
    sign_key=bytes(range(32)),
    seal_key=bytes(range(32, 64)),
    supernode_key="ecdsa-sha2-nistp384 AAAA",
    serial="0" * 40,
    enrolled_at=ISSUED,
)
"""A device that was enrolled when a database was recorded, from revision 0004 on."""


def main() -> None:
    file = FOLDER / f"revision_{NEWEST}.sql"
    if file.exists():
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        with open_database(f"sqlite:///{path}") as database:
            paper = HubOnPaper(database)
            paper.hear(birth())
            paper.hear(summary())
            paper.hub.tick()
            with database.transaction() as connection:
                Enrolments(connection).keep_device(ENROLLED)
        connection = sqlite3.connect(path)
        file.write_text("\n".join(connection.iterdump()) + "\n")
        connection.close()


if __name__ == "__main__":
    main()
