"""Counts made anew from a ledger: nothing that was released is forgotten, none of it cheaper."""

import pytest

from privacy import BudgetExceededError, release_epsilon
from privacy.accountant import gaussian_epsilon, mu_for
from privacy.discrete_accounting import mu_squared_of_count
from server.cli import main
from server.privacy_home.home_files import COUNTS_FILE
from server.privacy_home.home_repair import charge_everyone
from server.privacy_home.ledger_file import LEDGER_FILE
from server.privacy_home.privacy_errors import HomeBrokenError
from server.privacy_home.privacy_ledger import open_home, read_home
from tests.support.released_homes import (
    DELTA,
    LIMITS,
    SIGMA,
    STRICT,
    UNSAID,
    ask,
    take_step,
    take_steps,
)


def epsilon(home):
    return release_epsilon((entry.event for entry in home.entries), delta=DELTA)


def test_counts_made_anew_charge_updates_and_counts_and_never_lower_the_figure(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "first", 2)
    for index in range(3):
        ask(home, index)
    before = epsilon(home)
    (tmp_path / COUNTS_FILE).unlink()
    charge_everyone(tmp_path, head=read_home(tmp_path)[-1].hash)

    home = open_home(tmp_path)
    assert home.worst_case.mu_squared == pytest.approx(2 * SIGMA**-2)
    assert home.worst_case.counts_mu_squared == pytest.approx(3 * mu_squared_of_count(SIGMA))
    found = home.life_counts(["anybody"])
    assert found.counts_mu_squared[0] == pytest.approx(3 * mu_squared_of_count(SIGMA))
    assert epsilon(home) == pytest.approx(before)
    take_steps(home, "second", 2)
    mu_squared = 4 * SIGMA**-2 + 3 * mu_squared_of_count(SIGMA)
    assert epsilon(home) >= gaussian_epsilon(mu=mu_squared**0.5, delta=DELTA) > before


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_older_ledger_is_not_taken_for_the_newest(tmp_path, kept):
    home = open_home(tmp_path)
    take_steps(home, "first", 3)
    head = home.entries[-1].hash
    lines = (tmp_path / LEDGER_FILE).read_text().splitlines(keepends=True)
    (tmp_path / LEDGER_FILE).write_text("".join(lines[:kept]))
    content = (tmp_path / COUNTS_FILE).read_bytes()
    with pytest.raises(HomeBrokenError, match="does not end with an entry") as refused:
        charge_everyone(tmp_path, head=head)
    assert refused.value.exit_code == 5
    assert (tmp_path / COUNTS_FILE).read_bytes() == content


def test_command_asks_for_the_newest_entry(tmp_path, capsys):
    home = open_home(tmp_path)
    take_steps(home, "first", 1)
    head = home.entries[-1].hash
    (tmp_path / COUNTS_FILE).unlink()
    arguments = ["privacy", "ledger", "--home", str(tmp_path), "--rebuild-counts"]
    for more, code in (([], 2), (["--head", head[:8]], 5), (["--head", head], 0)):
        with pytest.raises(SystemExit) as left:
            main([*arguments, *more])
        assert left.value.code == code
    assert "charged every device for 1 releases" in capsys.readouterr().err


def rebuilt(home):
    """The home after its counts were lost and made anew."""
    (home.path / COUNTS_FILE).unlink()
    charge_everyone(home.path, head=read_home(home.path)[-1].hash)
    return open_home(home.path)


def test_counts_made_anew_keep_what_every_policy_promised(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "strict", 2, STRICT)
    with pytest.raises(BudgetExceededError):
        take_steps(home, "lax", 1)
    home = rebuilt(home)

    found = home.life_counts(["one", "never seen"])
    whole = mu_for(epsilon=STRICT["epsilon"], delta=DELTA) ** 2
    assert found.max_participations.tolist() == [2, 2]
    assert found.mu_squared_limit == pytest.approx([whole / 2] * 2)
    assert found.mu_squared_in_all == pytest.approx([whole] * 2)
    with pytest.raises(BudgetExceededError):
        take_steps(home, "lax again", 1)


@pytest.mark.parametrize(("held_out", "share"), [(False, 0.5), (True, 1.0)])
def test_counts_made_anew_keep_the_share_of_counts(tmp_path, held_out, share):
    home = open_home(tmp_path)
    ask(home, 0, limits=STRICT, held_out=held_out)
    found = rebuilt(home).life_counts(["one"])

    whole = mu_for(epsilon=STRICT["epsilon"], delta=DELTA) ** 2
    assert found.counts_limit == pytest.approx([share * whole])
    assert found.mu_squared_in_all == pytest.approx([whole])
    assert found.max_participations[0] > 10


def test_ledger_that_said_no_limits_allows_nothing_more_once_its_counts_are_lost(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "of yesterday", 2, UNSAID)
    take_step(home, "of yesterday", 2, UNSAID)
    home = rebuilt(home)
    with pytest.raises(BudgetExceededError):
        take_steps(home, "next", 1, LIMITS)


def test_counts_are_made_anew_without_the_journal_of_those_that_were_there(tmp_path):
    home = open_home(tmp_path)
    take_steps(home, "first", 2)
    journal = tmp_path / f"{COUNTS_FILE}-journal"
    (tmp_path / COUNTS_FILE).write_bytes(b"damaged" * 999)
    journal.write_bytes(b"what a crash left")
    charge_everyone(tmp_path, head=home.entries[-1].hash)
    assert not journal.exists()
    assert open_home(tmp_path).life_counts(["one"]).participations.tolist() == [2]
