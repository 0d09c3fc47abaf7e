"""A hub's database of revision 0001 is brought up to date, and nothing in it is lost."""

import sqlite3

from server.hub_status import hub_status
from server.storage.database import open_database
from tests.golden.make_hub_database import FILE
from tests.support.hubs import HubOnPaper
from tests.support.wire_messages import ack


def test_a_database_of_revision_0001_goes_on(tmp_path):
    path = tmp_path / "hub.db"
    connection = sqlite3.connect(path)
    connection.executescript(FILE.read_text())
    connection.close()

    with open_database(f"sqlite:///{path}") as database:
        before = hub_status(database)
        paper = HubOnPaper(database)
        paper.pass_time(days=2)
        (notice,) = paper.sent
        paper.hear(ack(correlation=notice.id))
        after = hub_status(database)

    assert (before.devices, before.sent, before.waiting, before.acknowledged) == (1, 1, 1, 0)
    assert (after.waiting, after.acknowledged, after.notices) == (0, 1, {"received": 1})
