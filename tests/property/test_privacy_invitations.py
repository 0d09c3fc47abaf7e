"""Whatever the schedule, no device is invited more often or sooner than the accounting assumes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.engine.cohorts import CohortHistory, Schedule, invitation_order, select_cohort


@given(population=st.integers(1, 30), data=st.data())
def test_schedule_keeps_its_cap_and_separation_with_full_cohorts(population, data):
    schedule = Schedule(
        population_size=population,
        cohort_size=data.draw(st.integers(1, population)),
        num_rounds=data.draw(st.integers(1, 40)),
    )
    order = invitation_order([f"d{number}" for number in range(population)], stream="s")
    history = CohortHistory.empty(population)
    invited = [[] for _ in range(population)]
    for index in range(schedule.num_rounds):
        cohort = select_cohort(
            order,
            schedule=schedule,
            history=history,
            index=index,
            max_participations=schedule.participations,
            min_separation=schedule.min_separation,
        )
        assert len(cohort) == schedule.cohort_size
        assert len(np.unique(cohort)) == len(cohort)
        history = history.after(cohort, index=index)
        for device in cohort:
            invited[device].append(index)
    counts = [len(indices) for indices in invited]
    assert max(counts) == schedule.participations == history.most_participations
    assert max(counts) - min(counts) <= 1
    gaps = [gap for indices in invited for gap in np.diff(indices)]
    assert all(gap >= schedule.min_separation for gap in gaps)
