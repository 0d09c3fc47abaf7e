"""Records a hub's database of revision 0001, as SQL: a device, a summary, a notice that waits.

Made by the code of that revision (`python -m tests.golden.make_hub_database`); a file that is there
is never overwritten.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from server.storage.database import open_database
from tests.support.hubs import HubOnPaper
from tests.support.wire_messages import birth, summary

FILE = Path(__file__).parent / "hubs" / "revision_0001.sql"


def main() -> None:
    if FILE.exists():
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        with open_database(f"sqlite:///{path}") as database:
            paper = HubOnPaper(database)
            paper.hear(birth())
            paper.hear(summary())
            paper.hub.tick()
        connection = sqlite3.connect(path)
        FILE.write_text("\n".join(connection.iterdump()) + "\n")
        connection.close()


if __name__ == "__main__":
    main()
