"""What a lying node said for devices is taken back by an operator who shows the newest entry."""

import json
from datetime import UTC, datetime

import pytest

from server.cli import main
from server.privacy_home.cleared_words import OPERATIONS_FILE, clear_said, read_operations
from server.privacy_home.counts_file import transaction
from server.privacy_home.device_words import words_of
from server.privacy_home.home_files import COUNTS_FILE
from server.privacy_home.privacy_errors import HomeBrokenError
from server.privacy_home.privacy_ledger import open_home
from tests.support.released_homes import DEVICES, take_steps

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LIE = (2**62, 1e300)


@pytest.fixture
def home(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "s", 1)
    home.note_said(dict.fromkeys(DEVICES[:2], LIE))
    return home


def said_of(home):
    with transaction(home.path / COUNTS_FILE) as connection:
        return words_of(connection, DEVICES)


def test_a_word_counts_up_to_what_policies_here_let_its_device_spend(home):
    counts = home.life_counts(DEVICES)
    assert counts.participations[:2].tolist() == counts.max_participations[:2].tolist()
    assert counts.said_mu_squared[:2].tolist() == counts.mu_squared_in_all[:2].tolist()
    assert all(count < LIE[0] and mu < LIE[1] for count, mu in said_of(home).values())


def test_cleared_words_leave_the_homes_own_count_and_a_line(home):
    head = home.entries[-1].hash
    cleared = clear_said(home.path, [*DEVICES[:2], "nobody"], head=head, asked_by="op", now=NOW)
    assert cleared == tuple(DEVICES[:2])
    assert said_of(home) == {}
    assert home.life_counts(DEVICES).participations.tolist() == [1] * len(DEVICES)
    (line,) = read_operations(home.path)
    assert (line["what"], line["asked_by"], line["head"]) == ("words_cleared", "op", head)
    assert set(line["said"]) == set(DEVICES[:2])
    assert (home.path / OPERATIONS_FILE).stat().st_mode & 0o777 == 0o600


def test_without_the_newest_entry_nothing_is_cleared(home):
    before = said_of(home)
    for head in ("", "0" * 64):
        with pytest.raises(HomeBrokenError, match="does not end with an entry"):
            clear_said(home.path, DEVICES, head=head, asked_by="op", now=NOW)
    assert said_of(home) == before
    assert read_operations(home.path) == []


def test_the_command_clears_shows_and_needs_the_head(home, capsys):
    words = ["privacy", "ledger", "--home", str(home.path), "--clear-said", DEVICES[0]]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    with pytest.raises(SystemExit) as left:
        main([*words, "--head", home.entries[-1].hash])
    assert left.value.code == 0
    said = capsys.readouterr()
    assert "cleared what was said for 1 of 1 devices" in said.err
    assert "cleared what was said for 1 devices" in said.out
    with pytest.raises(SystemExit):
        main(["privacy", "ledger", "--home", str(home.path), "--json"])
    assert len(json.loads(capsys.readouterr().out)["operations"]) == 1
