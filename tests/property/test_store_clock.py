"""What age takes from the ring, over arbitrary lives: of a right clock, and of wrong ones."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.store.clock import STEP_S, age_limit
from tests.support.examples import examples

DAY = 86_400
BEGIN_S = 1_700_000_000
RETENTIONS = st.integers(30, 800).map(lambda days: days * DAY)
STEPS = st.integers(1, 20).map(lambda days: days * DAY)


class Ring:
    """Readings that leave as they do in a store; it knows when each was truly recorded."""

    def __init__(self, retention_s):
        self.retention_s = retention_s
        self.true_s = BEGIN_S
        self.kept = []
        self.left_at_age_s = []
        self._recorded = 0

    def record(self, *, after_s, ahead_s=0):
        self.true_s += after_s
        self._recorded += 1
        now_s = self.true_s + ahead_s
        self.kept.append((now_s, self._recorded, self.true_s))
        told = sorted(((at, number) for at, number, _ in self.kept if at <= now_s), reverse=True)
        limit_s = age_limit(told, now_s=now_s, retention_s=self.retention_s)
        if limit_s is None:
            return
        assert limit_s <= now_s - self.retention_s
        for one in [one for one in self.kept[:-1] if one[0] < limit_s]:
            self.kept.remove(one)
            self.left_at_age_s.append(self.true_s - one[2])

    def ages_s(self):
        return [self.true_s - true_s for _, _, true_s in self.kept]


@given(
    retention_s=RETENTIONS,
    rhythm_s=st.integers(60, 300 * DAY),
    shares=st.lists(st.floats(0.5, 1.0), max_size=60),
    burst=st.integers(1, 4),
)
@settings(max_examples=examples(80))
def test_right_clock_makes_readings_leave_on_the_day_at_any_rhythm(
    retention_s, rhythm_s, shares, burst
):
    ring = Ring(retention_s)
    widest_s = min(rhythm_s, retention_s // 3)
    for share in shares:
        ring.record(after_s=max(1, int(widest_s * share)))
        for _ in range(burst - 1):
            ring.record(after_s=60)
        assert max(ring.ages_s()) <= retention_s
    assert all(age_s > retention_s for age_s in ring.left_at_age_s)


@given(retention_s=RETENTIONS, gaps=st.lists(st.integers(60, 4_000 * DAY), max_size=40))
@settings(max_examples=examples(60))
def test_gaps_of_a_right_clock_hold_back_by_no_more_than_they_are_over_a_month(retention_s, gaps):
    ring = Ring(retention_s)
    times = [ring.true_s]
    for gap_s in gaps:
        ring.record(after_s=gap_s)
        times.append(ring.true_s)
    full_s = min(STEP_S, retention_s // 3)
    for age_s in ring.ages_s():
        since = [gap for gap, at in zip(gaps, times[1:], strict=True) if ring.true_s - at < age_s]
        assert age_s <= retention_s + sum(max(0, gap - full_s) for gap in since)
    assert all(age_s > retention_s for age_s in ring.left_at_age_s)


@given(retention_s=RETENTIONS, storage_s=st.integers(1, 9_000 * DAY), step_s=STEPS)
@settings(max_examples=examples(40))
def test_after_years_in_storage_two_thirds_of_use_end_what_was_before(
    retention_s, storage_s, step_s
):
    ring = Ring(retention_s)
    step_s = min(step_s, retention_s // 3)
    for _ in range(30):
        ring.record(after_s=step_s)
    ring.record(after_s=storage_s)
    for _ in range(2 * retention_s // 3 // step_s + 2):
        ring.record(after_s=step_s)
    assert all(age_s <= retention_s for age_s in ring.ages_s())


@given(
    retention_s=RETENTIONS,
    ahead_s=st.integers(1, 9_000 * DAY),
    step_s=STEPS,
    counts=st.tuples(st.integers(0, 80), st.integers(1, 80), st.integers(0, 40)),
)
@settings(max_examples=examples(80))
def test_no_clock_ahead_takes_what_is_younger_than_two_thirds(retention_s, ahead_s, step_s, counts):
    ring = Ring(retention_s)
    before, under, after = counts
    for _ in range(before):
        ring.record(after_s=step_s)
    for _ in range(under):
        ring.record(after_s=step_s, ahead_s=ahead_s)
    for _ in range(after):
        ring.record(after_s=step_s)
    least_s = 2 * retention_s // 3
    if under * step_s <= STEP_S:
        least_s = max(least_s, retention_s - STEP_S - min(ahead_s, STEP_S))
    assert all(age_s >= least_s for age_s in ring.left_at_age_s)


@given(
    episodes=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 6)), max_size=8, unique_by=lambda one: one[0]
    ),
    step_s=STEPS,
)
@settings(max_examples=examples(40))
def test_nor_do_several_that_it_was_set_back_from(episodes, step_s):
    ring = Ring(730 * DAY)
    for decades, count in episodes:
        for _ in range(4):
            ring.record(after_s=step_s)
        for _ in range(count):
            ring.record(after_s=step_s, ahead_s=decades * 3_650 * DAY)
    assert all(age_s >= 2 * ring.retention_s // 3 for age_s in ring.left_at_age_s)
