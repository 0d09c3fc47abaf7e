"""Counts made anew from a ledger: nothing that was released is forgotten, none of it cheaper."""

from datetime import UTC, datetime

import pytest

from privacy import CorrelatedRelease, CountRelease, release_epsilon
from privacy.accountant import gaussian_epsilon
from privacy.discrete_accounting import mu_squared_of_count
from server.cli import main
from server.privacy_home.home_repair import charge_everyone
from server.privacy_home.ledger_file import LEDGER_FILE
from server.privacy_home.participation_counts import AnswerCost, StepCost, StreamRecord
from server.privacy_home.privacy_errors import HomeBrokenError
from server.privacy_home.privacy_ledger import COUNTS_FILE, open_home, read_home

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SIGMA, DELTA = 4.0, 1e-6
DEVICES = ["one", "two"]


def take_steps(home, stream, num_steps):
    record = StreamRecord(policy_digest="ab" * 32, anchor="", max_participations=10)
    home.open_stream(stream, record)
    for index in range(num_steps):
        home.invite(
            stream,
            index,
            device_ids=DEVICES,
            choose=lambda _: [0, 1],
            cost=StepCost(mu_squared=SIGMA**-2),
        )
        home.commit(stream, index, digest="cd" * 32, noise_only=False)
        event = CorrelatedRelease(
            stream=stream,
            index=index,
            noise_multiplier=SIGMA,
            clipping_norm=0.3,
            cohort_size=2,
            bands=1,
            min_separation=1,
            most_participations=index + 1,
            policy_digest="ab" * 32,
        )
        home.charge(event, kind="stream", at=NOW)


def ask(home, index):
    cost = AnswerCost(mu_squared=mu_squared_of_count(SIGMA))
    most = home.count_answers("series", index, DEVICES, cost=cost)
    event = CountRelease(
        channel="metrics",
        index=index,
        noise_multiplier=SIGMA,
        sensitivity=1.0,
        cohort_size=2,
        most_answers=most,
        policy_digest="ab" * 32,
    )
    home.charge(event, kind="stream", at=NOW)


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
    assert home.legacy.mu_squared == pytest.approx(2 * SIGMA**-2)
    assert home.legacy.counts_mu_squared == pytest.approx(3 * mu_squared_of_count(SIGMA))
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
