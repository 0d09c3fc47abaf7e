"""A device's ledger of the first version verifies, limits and reads the same for ever.

Made by `make_device_ledger.py` beside this file; never made anew once released.
"""

import shutil
from pathlib import Path

import pytest

from edge_client.errors import ParticipationRefusedError
from edge_client.privacy.account import account_of
from edge_client.privacy.ledger_file import read_device_ledger
from edge_client.privacy.participation import admit, debit
from edge_client.store.erasure import head_path, ledger_path
from privacy.device_history import history_of
from tests.support.edge_devices import NOW, new_store
from tests.support.stream_policies import stream_policy
from tests.support.training_tasks import TERMS, task_of

GOLDEN = Path(__file__).parent


@pytest.fixture
def store(tmp_path):
    with new_store(tmp_path) as opened:
        shutil.copy(GOLDEN / "device_ledger_v1.jsonl", ledger_path(opened.path))
        shutil.copy(GOLDEN / "device_ledger_v1.head.json", head_path(opened.path))
        yield opened


def test_first_ledger_of_a_device_says_what_it_cost(store):
    account = account_of(store.path, store, is_brief=True)
    assert (account.state, account.num_entries, account.num_participations) == ("sound", 5, 2)
    assert (account.max_participations, account.participations_left) == (24, 22)
    assert account.delta == 1e-8
    # By mpmath from mu squared = 2 / 14.1² + 1 / (40² - 1).
    assert account.epsilon == pytest.approx(0.510271720765, rel=1e-9)
    assert account.epsilon_limit == pytest.approx(2.0, rel=1e-6)


def test_first_ledger_of_a_device_still_decides(store):
    history = history_of(read_device_ledger(store.path, store).events, stream="2026-a")
    assert (history.participations, history.last_index) == (2, 7)
    again = stream_policy(stream="2026-a", cohort_size=2500)
    with pytest.raises(ParticipationRefusedError) as caught:
        admit(store, task_of(again, index=20), terms=TERMS, now=NOW)
    assert caught.value.refusal == "policy_changed"
    other = task_of(stream_policy(stream="2027-a", cohort_size=2500), index=1)
    longer = debit(store, admit(store, other, terms=TERMS, now=NOW), terms=TERMS, now=NOW)
    assert len(longer.entries) == 7
    before = (GOLDEN / "device_ledger_v1.jsonl").read_bytes()
    assert ledger_path(store.path).read_bytes().startswith(before)
