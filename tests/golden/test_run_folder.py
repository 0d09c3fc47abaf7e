"""A run's folder from before there were counts of devices verifies, reads and counts for ever.

Made by `make_run_folder.py` beside this file; never made anew.
"""

import shutil
from pathlib import Path

import pytest

from privacy import events_of, release_epsilon
from server.privacy_home.ledger_report import home_report
from server.privacy_home.privacy_ledger import COUNTS_FILE, open_home, read_home
from server.streams.stream_files import read_checkpoint

GOLDEN = Path(__file__).parent / "run_folder_v1"


def test_ledger_of_yesterday_verifies_and_means_the_same():
    entries = read_home(GOLDEN)

    assert [entry.kind for entry in entries] == ["stream"] * 3
    assert release_epsilon(events_of(entries), delta=1e-8) == pytest.approx(2.0, rel=1e-3)
    report = home_report(GOLDEN, delta=1e-8)
    assert (report["entries"], report["participants"]) == (3, None)
    assert not (GOLDEN / COUNTS_FILE).exists()


def test_checkpoint_of_yesterday_reads():
    checkpoint = read_checkpoint(GOLDEN)

    assert (checkpoint.index, checkpoint.entry_hash) == (2, "")
    assert checkpoint.state.weights.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_home_that_grows_out_of_it_charges_everyone_for_what_nobody_counted(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "home")

    home = open_home(tmp_path / "home")
    found = home.life_counts(["never-seen-before"])

    assert found.participations.tolist() == [3]
    assert found.mu_squared == pytest.approx([3 / 4.595**2])
    assert len(home.entries) == 3
