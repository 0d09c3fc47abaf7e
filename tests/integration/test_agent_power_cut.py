"""SIGKILL while notices are received, shown and acknowledged: each is kept once, none is lost.

The broker lives and redelivers what was not acknowledged; a kill between showing a notice and
noting so may show it once more, and a notice that is noted as shown is never shown again.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from random import Random

import pytest

from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore
from models.wire.messages import NoticeState
from tests.integration.test_link_faults import Server
from tests.support.brokers import mosquitto_in, wait_until
from tests.support.edge_devices import NOW, PROFILE, fading_life
from tests.support.line_bundle import write_line_bundle
from tests.support.system_parts import REPOSITORY

pytestmark = pytest.mark.broker

PATIENCE_S = 20.0


class Nursery:
    """One device whose agent is killed again and again."""

    def __init__(self, folder, broker):
        self.path = folder / "device.db"
        self.shown_file = folder / "shown"
        self.shown_file.touch()
        with TelemetryStore.create(self.path, profile=PROFILE) as store:
            store.record_many(fading_life(), now=NOW)
            for purpose in Purpose:
                store.set_consent(purpose, granted=True, now=NOW)
        bundle = write_line_bundle(folder / "line.zip")
        place = [broker.host, str(broker.port), str(self.shown_file)]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.agent_nursery"),
                *(str(self.path), str(bundle), *place),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=REPOSITORY,
        )

    def start(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def kill(self, child):
        os.kill(child, signal.SIGKILL)
        assert self._process.stdout.readline() == "ended\n"

    def close(self):
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    def kept(self):
        """Return the state of each notice by its number, of a store that must be sound."""
        with TelemetryStore(self.path) as store:
            assert store.rows("PRAGMA integrity_check") == [("ok",)]
            notices = [(int(n.message_id, 16), n.state) for n in store.notices()]
        assert len(dict(notices)) == len(notices)
        return dict(notices)

    def shown(self):
        return Counter(int(line, 16) for line in self.shown_file.read_text().split())


def kill_again_and_again(folder, *, kills, seed):
    """Return how often a notice was shown a second time, and how many there were."""
    random = Random(seed)
    number = 0
    with mosquitto_in(folder) as broker, Server(broker) as server:
        nursery = Nursery(folder, broker)
        try:
            # The first connection makes the session in which the broker keeps notices.
            child = nursery.start()
            assert wait_until(lambda: server.heard.messages, PATIENCE_S)
            nursery.kill(child)
            for _ in range(kills):
                before, shown_before = nursery.kept(), nursery.shown()
                for _ in range(random.randint(1, 40)):
                    number += 1
                    server.notify(number)
                child = nursery.start()
                time.sleep(random.uniform(0.0, 0.25))
                nursery.kill(child)
                noted = [n for n, state in before.items() if state is NoticeState.SHOWN]
                shown = nursery.shown()
                assert [n for n in noted if shown[n] != shown_before[n]] == []
                assert set(before) <= set(nursery.kept())
            child = nursery.start()
            everything = set(range(1, number + 1))
            assert wait_until(lambda: server.acked() == everything, PATIENCE_S)
            nursery.kill(child)
            assert nursery.kept() == dict.fromkeys(everything, NoticeState.SHOWN)
            shown = nursery.shown()
        finally:
            nursery.close()
    assert set(shown) == everything
    repeated = sum(shown.values()) - len(shown)
    assert repeated <= kills + 1
    return repeated, number


def test_a_killed_agent_keeps_every_notice_once(tmp_path):
    _, number = kill_again_and_again(tmp_path, kills=10, seed=1)

    assert number > 10


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 11))
def test_a_killed_agent_keeps_every_notice_once_at_ten_more_points(tmp_path, seed):
    """Each seed is ten points of its own, so that an interrupted soak can go on with the rest."""
    _, number = kill_again_and_again(tmp_path, kills=10, seed=seed)

    assert number > 10
