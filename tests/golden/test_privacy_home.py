"""Counts of devices from before there were limits on counts are read, and go on, for ever.

Made by `make_privacy_home.py` beside this file; never made anew.
"""

import math
import shutil
from pathlib import Path

import pytest

from privacy import BudgetExceededError
from server.privacy_home.counts_file import transaction
from server.privacy_home.home_files import COUNTS_FILE
from server.privacy_home.ledger_report import home_report
from server.privacy_home.participation_counts import AnswerCost, StepCost
from server.privacy_home.privacy_ledger import open_home
from tests.support.moved_homes import made_here

GOLDEN = Path(__file__).parent / "privacy_home_v1"
DEVICES = ["device-1", "device-2", "device-10", "device-15"]


@pytest.fixture
def home(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "home")
    return open_home(made_here(tmp_path / "home"))


def test_counts_of_yesterday_mean_the_same(home):
    found = home.life_counts(DEVICES)

    assert found.participations.tolist() == [1, 3, 0, 0]
    assert found.mu_squared.tolist() == [0.01, 0.01, 0.0, 0.0]
    assert found.counts_mu_squared == pytest.approx([1 / 99, 1 / 99, 1 / 99, 0.0])
    assert found.said_mu_squared.tolist() == [0.0, 0.5, 0.0, 0.0]
    assert found.max_participations.tolist()[:2] == [4, 4]
    assert found.answers_held_out.tolist() == [False, False, True, False]
    assert found.answers_in_training.tolist() == [True, True, False, False]
    assert all(math.isinf(limit) for limit in found.counts_limit)


def test_a_device_that_answered_as_one_that_never_trains_stays_one(home):
    cost = StepCost(mu_squared=0.01)
    with pytest.raises(BudgetExceededError):
        home.invite("s", 1, device_ids=DEVICES, choose=lambda _: [2], cost=cost)
    with pytest.raises(BudgetExceededError):
        home.count_answers("d drift", 1, ["device-10"], cost=AnswerCost(mu_squared=0.01))
    assert home.invite("s", 1, device_ids=DEVICES, choose=lambda _: [0, 3], cost=cost)[1] == 2


def test_a_report_reads_the_file_and_leaves_it_as_it_is():
    before = (GOLDEN / COUNTS_FILE).read_bytes()
    assert home_report(GOLDEN, delta=1e-8)["participants"]["devices"] == 5
    assert (GOLDEN / COUNTS_FILE).read_bytes() == before


def test_the_file_is_brought_up_to_date_once(home):
    for _ in range(2):
        with transaction(home.path / COUNTS_FILE) as connection:
            rows = connection.execute("SELECT value FROM facts WHERE name = 'schema_version'")
            assert rows.fetchall() == [("2",)]
