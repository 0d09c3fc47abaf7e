"""A privacy home holds counts and updates of a device to one budget, and an owner to a few."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from privacy import BudgetExceededError, CorrelatedRelease, CountRelease
from privacy.accountant import gaussian_epsilon
from privacy.budget import Refusal
from privacy.statement import SAID_MORE
from server.commands.privacy_ledger import ledger_lines
from server.privacy_home.ledger_report import home_report
from server.privacy_home.participation_counts import AnswerCost, StepCost, StreamRecord
from server.privacy_home.privacy_errors import StreamRefusedError
from server.privacy_home.privacy_ledger import open_home

RUN_OF_YESTERDAY = Path(__file__).parents[1] / "golden" / "run_folder_v1"
STEP = StepCost(mu_squared=0.1, mu_squared_limit=0.8, mu_squared_in_all=1.0)
ANSWER = AnswerCost(mu_squared=0.1, mu_squared_limit=0.2, mu_squared_in_all=1.0)
HELD_OUT = AnswerCost(mu_squared=0.1, mu_squared_limit=1.0, mu_squared_in_all=1.0, held_out=True)


@pytest.fixture
def home(tmp_path):
    home = open_home(tmp_path / "home")
    record = StreamRecord(policy_digest="d", anchor="", max_participations=99)
    home.open_stream("s", record)
    return home


def invite(home, *device_ids, cost=STEP):
    _, steps = home.stream("s")
    everyone = list(range(len(device_ids)))
    return home.invite("s", len(steps), device_ids=device_ids, choose=lambda _: everyone, cost=cost)


def test_counts_of_several_policies_stay_within_one_share(home):
    for policy in ("p", "q"):
        home.charge_answers(f"{policy} drift", 0, ["a"], cost=ANSWER)
    with pytest.raises(BudgetExceededError) as refused:
        home.charge_answers("r drift", 0, ["a"], cost=ANSWER)

    assert refused.value.reason == Refusal.BUDGET_SPENT
    assert (refused.value.spent, refused.value.limit) == (pytest.approx(0.2), 0.2)
    assert home.life_counts(["a"]).counts_mu_squared == pytest.approx([0.2])
    home.charge_answers("r drift", 0, ["b"], cost=ANSWER)


def test_a_stricter_policy_binds_the_counts_of_later_ones(home):
    home.charge_answers("p drift", 0, ["a"], cost=ANSWER)
    generous = AnswerCost(mu_squared=0.1, mu_squared_limit=9.0, mu_squared_in_all=9.0)
    home.charge_answers("q drift", 0, ["a"], cost=generous)
    with pytest.raises(BudgetExceededError):
        home.charge_answers("q drift", 1, ["a"], cost=generous)


def test_what_counts_have_spent_is_not_left_for_updates(home):
    generous = AnswerCost(mu_squared=0.75, mu_squared_limit=9.0, mu_squared_in_all=9.0)
    home.charge_answers("p drift", 0, ["a"], cost=generous)
    invite(home, "a")
    invite(home, "a")
    assert not home.life_counts(["a"]).may_go_on(STEP)[0]
    with pytest.raises(BudgetExceededError) as refused:
        invite(home, "a")

    assert (refused.value.spent, refused.value.limit) == (pytest.approx(0.95), 1.0)
    invite(home, "b")


def test_what_a_device_said_is_not_left_for_counts(home):
    home.note_said({"a": (1, 0.95)})
    with pytest.raises(BudgetExceededError):
        home.charge_answers("p drift", 0, ["a"], cost=ANSWER)


def test_who_answered_as_one_that_never_trains_takes_part_in_no_step(home):
    home.charge_answers("p metrics", 0, ["a"], cost=HELD_OUT)
    with pytest.raises(BudgetExceededError) as refused:
        invite(home, "a")
    assert refused.value.reason == Refusal.HELD_OUT
    with pytest.raises(BudgetExceededError):
        home.charge_answers("p drift", 0, ["a"], cost=ANSWER)


def test_who_was_in_a_step_or_may_be_is_not_asked_as_one_that_never_trains(home):
    invite(home, "a")
    home.charge_answers("p drift", 0, ["b"], cost=ANSWER)
    for device_id in ("a", "b"):
        with pytest.raises(BudgetExceededError) as refused:
            home.charge_answers("p metrics", 0, [device_id], cost=HELD_OUT)
        assert refused.value.reason == Refusal.NOT_HELD_OUT


def test_a_release_that_was_asked_before_is_told_from_a_spent_budget(home):
    whole = AnswerCost(mu_squared=0.2, mu_squared_limit=0.2, mu_squared_in_all=1.0)
    home.charge_answers("p drift", 0, ["a"], cost=whole)
    with pytest.raises(StreamRefusedError, match="before"):
        home.charge_answers("p drift", 0, ["a"], cost=whole)


def test_an_owner_has_no_more_devices_than_the_bound_over_all_steps(home):
    owners = dict.fromkeys("abc", "one") | {"d": "two"}
    assert home.keep_owners("s", owners, most_devices=2).invited == ()
    invite(home, "a", "b", "d")
    with pytest.raises(StreamRefusedError, match="3 devices of one owner"):
        invite(home, "c")
    invite(home, "a", "b", "unknown")
    kept = home.keep_owners("s", owners, most_devices=2)
    assert kept.invited == ("a", "b", "d", "unknown")


@pytest.mark.parametrize(
    ("owners", "most_devices"),
    [({}, 3), ({"a": "one"}, 3), ({"a": "two"}, 2), ({"a": "one", "b": "one"}, 2)],
)
def test_a_stream_goes_on_with_the_owners_it_began_with(home, owners, most_devices):
    home.keep_owners("s", {"a": "none yet"}, most_devices=9)
    home.keep_owners("s", {"a": "one"}, most_devices=2)
    invite(home, "a")
    with pytest.raises(StreamRefusedError, match="file of owners that the run began with"):
        home.keep_owners("s", owners, most_devices=most_devices)


def test_who_resumes_a_stream_need_not_name_its_owners_again(home):
    began = home.keep_owners("s", dict.fromkeys("abc", "one") | {"d": "two"}, most_devices=2)
    invite(home, "a", "b")
    kept = home.keep_owners("s", {}, most_devices=2)
    assert kept.owners == began.owners
    assert kept.owners["a"] == kept.owners["c"] != kept.owners["d"]
    with pytest.raises(StreamRefusedError):
        invite(home, "c")


def test_a_stream_of_which_no_owners_were_kept_takes_those_it_is_resumed_with(home):
    invite(home, "a", "b")
    kept = home.keep_owners("s", dict.fromkeys("abc", "one"), most_devices=2)
    assert kept.invited == ("a", "b")
    with pytest.raises(StreamRefusedError):
        invite(home, "c")


def test_names_of_owners_are_not_kept(home, tmp_path):
    home.keep_owners("s", {"a": "Ada Lovelace"}, most_devices=2)
    assert not any(
        b"Lovelace" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    )


def charged(home, event):
    return home.charge(event, kind="stream", at=datetime(2026, 5, 1, tzinfo=UTC)).event


def count_of(channel, *, held_out=False):
    return CountRelease(
        channel=channel,
        index=0,
        noise_multiplier=4.0,
        sensitivity=1.0,
        cohort_size=1,
        most_answers=1,
        policy_digest="p",
        held_out=held_out,
    )


def test_the_report_tells_updates_counts_and_what_devices_say(home):
    once, answer = 1 / 16, AnswerCost(mu_squared=1 / 15, mu_squared_in_all=0.5)
    home.charge_answers("p drift", 0, ["a"], cost=answer)
    charged(home, count_of("drift"))
    invite(home, "a", cost=StepCost(mu_squared=once, mu_squared_in_all=0.4))
    home.commit("s", 0, digest="x", noise_only=False)
    event = CorrelatedRelease(
        stream="s",
        index=0,
        noise_multiplier=4.0,
        clipping_norm=0.3,
        cohort_size=1,
        bands=1,
        min_separation=1,
        most_participations=1,
        policy_digest="d",
    )
    assert charged(home, event).most_mu_squared == pytest.approx(once + 1 / 15)

    report = home_report(home.path, delta=1e-8)
    found = report["participants"]
    assert found["most_mu_squared"] == pytest.approx(once + 1 / 15)
    assert found["updates_mu_squared"] == pytest.approx(once)
    assert found["counts_mu_squared"] == pytest.approx(1 / 15)
    assert (found["mu_squared_limit"], found["epsilon_said"]) == (0.4, None)
    assert found["mu_squared_left"] == pytest.approx(0.4 - once - 1 / 15)
    assert [one["mu_squared"] for one in report["releases"]] == pytest.approx([1 / 15, once])

    home.note_said({"b": (9, 9.0)})
    report = home_report(home.path, delta=1e-8)
    said = gaussian_epsilon(mu=3.0, delta=1e-8)
    assert report["participants"]["epsilon_said"] == pytest.approx(said)
    assert report["epsilon_ledger"] < said == report["epsilon_release"]
    assert SAID_MORE in report["assumptions"]
    shown = "\n".join(ledger_lines(report))
    assert "devices say" in shown
    assert "μ² 0.0625 to each device asked" in shown


def test_the_report_counts_what_nobody_counted(tmp_path):
    shutil.copytree(RUN_OF_YESTERDAY, tmp_path / "home")
    home = open_home(tmp_path / "home")
    record = StreamRecord(policy_digest="d", anchor="", max_participations=9)
    home.open_stream("s", record)
    invite(home, "a", cost=StepCost(mu_squared=0.1, mu_squared_in_all=0.5))

    found = home_report(home.path, delta=1e-8)["participants"]
    assert found["by_participations"] == {"4": 1}
    assert found["most_mu_squared"] == pytest.approx(0.1 + 3 / 4.595**2)
    assert found["mu_squared_left"] == pytest.approx(0.4 - 3 / 4.595**2)
