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
from server.privacy_home.home_repair import charge_everyone
from server.privacy_home.ledger_report import home_report
from server.privacy_home.participation_counts import AnswerCost, StepCost
from server.privacy_home.privacy_ledger import open_home, read_home
from tests.support.moved_homes import made_here

GOLDEN = Path(__file__).parent / "privacy_home_v1"
DEVICES = ["device-1", "device-2", "device-10", "device-15"]
CHEAP = StepCost(mu_squared=0.01)


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
        home.charge_answers("d drift", 1, ["device-10"], cost=AnswerCost(mu_squared=0.01))
    assert home.invite("s", 1, device_ids=DEVICES, choose=lambda _: [0, 3], cost=cost)[1] == 2


def test_a_report_reads_the_file_and_leaves_it_as_it_is():
    before = (GOLDEN / COUNTS_FILE).read_bytes()
    assert home_report(GOLDEN, delta=1e-8)["participants"]["devices"] == 5
    assert (GOLDEN / COUNTS_FILE).read_bytes() == before


def test_the_file_is_brought_up_to_date_once(home):
    for _ in range(2):
        with transaction(home.path / COUNTS_FILE) as connection:
            rows = connection.execute("SELECT value FROM facts WHERE name = 'schema_version'")
            assert rows.fetchall() == [("3",)]


@pytest.fixture
def without_limits(tmp_path):
    """A home whose entries do not say their policies' limits, made by `make_privacy_home_v2.py`."""
    shutil.copytree(GOLDEN.with_name("privacy_home_v2"), tmp_path / "home")
    return made_here(tmp_path / "home")


def test_a_home_whose_entries_said_no_limits_goes_on_by_its_counts(without_limits):
    home = open_home(without_limits)
    found = home.life_counts(["device-1", "device-3", "device-4"])
    assert found.participations.tolist() == [2, 2, 0]
    assert found.max_participations.tolist()[:2] == [4, 4]
    assert home.invite("s", 2, device_ids=["device-1"], choose=lambda _: [0], cost=CHEAP)[1] == 3
    mu_squared = home_report(without_limits, delta=1e-8)["mu_squared"]
    assert mu_squared == pytest.approx(0.02 + 1 / 99)


def test_a_home_whose_entries_said_no_limits_ends_where_its_counts_are_lost(without_limits):
    (without_limits / COUNTS_FILE).unlink()
    charge_everyone(without_limits, head=read_home(without_limits)[-1].hash)
    home = open_home(without_limits)
    found = home.life_counts(["anybody"])
    assert (found.participations[0], found.max_participations[0]) == (2, 2)
    assert not found.may_go_on(CHEAP)[0]
    assert not found.may_answer(AnswerCost(mu_squared=1e-6))[0]
