"""An agent whose store another process holds for a moment: nothing that it has to say is lost."""

import sqlite3
import time

import pytest

from edge_client.store import access, sqlite_file
from edge_client.store.mailbox import Mailbox
from models.wire.messages import Birth, Presence, Status, Summary
from tests.integration.test_link_faults import (  # noqa: F401 - fixtures
    RunningAgent,
    Server,
    broker,
    bundle,
    path,
)
from tests.support.brokers import wait_until

pytestmark = pytest.mark.broker


class AgentThatTells(RunningAgent):
    """One that tells when it starts."""

    def __init__(self, *where, on_start):
        super().__init__(*where)
        self._on_start = on_start

    def _started(self, agent):
        self._on_start()
        super()._started(agent)


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch):
    for module in (access, sqlite_file):
        monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 10)


@pytest.fixture
def writer(path):  # noqa: F811
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


def test_a_store_that_is_busy_at_the_start_costs_a_daemon_nothing(path, bundle, broker, writer):  # noqa: F811
    def hold():
        writer.execute("BEGIN IMMEDIATE")

    with Server(broker) as server, AgentThatTells(path, bundle, broker, on_start=hold) as device:
        assert wait_until(lambda: device.counters.predictions == 1)
        time.sleep(0.5)
        assert server.messages(Birth) + server.messages(Summary) == []
        writer.execute("ROLLBACK")
        assert wait_until(lambda: server.messages(Birth) and server.messages(Summary))
        assert [said.presence for said in server.messages(Status)][-1] is Presence.ONLINE
        assert device.counters.predictions == 1
        with Mailbox(path) as mailbox:
            assert wait_until(lambda: not mailbox.outbox())


def test_a_store_that_is_busy_at_the_end_is_no_error_of_a_daemon(path, bundle, broker, writer):  # noqa: F811
    with (
        Server(broker) as server,
        AgentThatTells(path, bundle, broker, on_start=lambda: None) as device,
    ):
        assert wait_until(lambda: device.counters.confirmed == 1)
        assert wait_until(lambda: server.messages(Summary))
        writer.execute("BEGIN IMMEDIATE")
