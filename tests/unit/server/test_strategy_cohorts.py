"""Invitations: by identifier, schedule and history, and nothing else."""

import numpy as np
import pytest

from server.engine.cohorts import (
    CohortHistory,
    Schedule,
    invitation_order,
    num_within_owner_cap,
    select_cohort,
    within_owner_cap,
)
from server.errors import SettingError
from server.owners import read_owners

IDS = [f"device-{number:03d}" for number in range(10)]


def run_schedule(schedule, *, stream="s", ids=IDS):
    order = invitation_order(ids, stream=stream)
    history = CohortHistory.empty(len(ids))
    cohorts = []
    for index in range(schedule.num_rounds):
        cohort = select_cohort(
            order,
            schedule=schedule,
            history=history,
            index=index,
            max_participations=schedule.participations,
            min_separation=schedule.min_separation,
        )
        history = history.after(cohort, index=index)
        cohorts.append(cohort)
    return cohorts, history


def test_every_device_has_its_turn_before_any_has_a_second():
    cohorts, history = run_schedule(Schedule(population_size=10, cohort_size=5, num_rounds=2))
    assert sorted(np.concatenate(cohorts).tolist()) == list(range(10))
    assert history.most_participations == 1


def test_a_round_that_does_not_divide_the_fleet_goes_on_where_it_stopped():
    schedule = Schedule(population_size=10, cohort_size=4, num_rounds=5)
    cohorts, history = run_schedule(schedule)
    assert [len(cohort) for cohort in cohorts] == [4] * 5
    assert history.participations.tolist() == [2] * 10
    assert (schedule.participations, schedule.min_separation) == (2, 2)


def test_streams_invite_in_different_orders_that_nobody_chooses():
    first = invitation_order(IDS, stream="a")
    assert np.array_equal(first, invitation_order(IDS, stream="a"))
    assert not np.array_equal(first, invitation_order(IDS, stream="b"))


def test_a_device_keeps_its_place_when_it_is_listed_elsewhere():
    order = invitation_order(IDS, stream="a")
    turned = invitation_order(IDS[::-1], stream="a")
    assert [IDS[i] for i in order] == [IDS[::-1][i] for i in turned]


def test_a_device_at_its_cap_is_passed_over():
    order = np.arange(4)
    history = CohortHistory.empty(4).after(np.array([0, 1]), index=0)
    schedule = Schedule(population_size=4, cohort_size=2, num_rounds=9)
    cohort = select_cohort(
        order,
        schedule=schedule,
        history=history,
        index=2,
        max_participations=1,
        min_separation=1,
    )
    assert cohort.tolist() == [2, 3]


def test_a_device_within_the_separation_is_passed_over():
    history = CohortHistory.empty(4).after(np.array([0, 1]), index=1)
    cohort = select_cohort(
        np.arange(4),
        schedule=Schedule(population_size=4, cohort_size=3, num_rounds=9),
        history=history,
        index=4,
        max_participations=9,
        min_separation=4,
    )
    assert cohort.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("population", "cohort", "rounds", "named"),
    [(10, 11, 1, "cohort_size"), (10, 0, 1, "cohort_size"), (10, 5, 0, "num_rounds")],
)
def test_a_schedule_that_cannot_be_kept_is_refused(population, cohort, rounds, named):
    with pytest.raises(ValueError, match=named):
        Schedule(population_size=population, cohort_size=cohort, num_rounds=rounds)


def test_an_owner_has_no_more_devices_in_a_stream_than_allowed():
    owners = dict.fromkeys(IDS[:6], "ada") | dict.fromkeys(IDS[6:8], "grace")
    order = invitation_order(IDS, stream="a")
    kept = within_owner_cap(IDS, order, owners=owners, max_devices_per_owner=3)
    names = [IDS[position] for position in kept]
    assert sum(owners.get(name) == "ada" for name in names) == 3
    assert set(IDS[6:]) <= set(names)
    first_of_ada = [IDS[position] for position in order if owners.get(IDS[position]) == "ada"][:3]
    assert set(first_of_ada) <= set(names)
    assert len(kept) == num_within_owner_cap(IDS, owners=owners, max_devices_per_owner=3) == 7


def test_devices_without_budget_are_passed_over():
    cohort = select_cohort(
        np.arange(4),
        schedule=Schedule(population_size=4, cohort_size=2, num_rounds=9),
        history=CohortHistory.empty(4),
        index=0,
        max_participations=9,
        min_separation=1,
        may=np.array([False, True, False, True]),
    )
    assert cohort.tolist() == [1, 3]


def test_owners_are_read_from_two_columns(tmp_path):
    path = tmp_path / "owners.csv"
    path.write_text("device_id,owner\nd1,ada\nd2,ada\n")
    assert read_owners(path) == {"d1": "ada", "d2": "ada"}
    for content in ("device_id\nd1\n", "a,b\n1,2\n"):
        path.write_text(content)
        with pytest.raises(SettingError, match="without device or owner"):
            read_owners(path)
    with pytest.raises(SettingError, match="cannot be read"):
        read_owners(tmp_path / "none.csv")
