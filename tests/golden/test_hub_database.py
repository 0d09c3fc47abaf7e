"""A hub's database of any revision is brought up to date, and nothing in it is lost."""

import sqlite3

import pytest

from server.hub_status import hub_status
from server.storage.database import open_database
from server.storage.enrolments import Enrolments
from server.storage.sites import Sites
from tests.golden.make_hub_database import ENROLLED, FILES
from tests.support.hubs import HubOnPaper
from tests.support.wire_messages import ack


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_database_of_an_earlier_revision_goes_on(tmp_path, file):
    path = tmp_path / "hub.db"
    connection = sqlite3.connect(path)
    connection.executescript(file.read_text())
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


@pytest.mark.parametrize("file", FILES[2:], ids=lambda file: file.stem)
def test_devices_of_an_earlier_revision_stay_enrolled_and_are_behind_no_gateway(tmp_path, file):
    path = tmp_path / "hub.db"
    connection = sqlite3.connect(path)
    connection.executescript(file.read_text())
    connection.close()

    with open_database(f"sqlite:///{path}") as database, database.reading() as connection:
        assert list(Enrolments(connection).devices()) == [ENROLLED]
        assert list(Sites(connection).gateways()) == []
        assert Sites(connection).gateway_of("device-1") is None
