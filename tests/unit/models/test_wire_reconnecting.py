"""How long a link waits between attempts: full jitter, so that no fleet comes back at once."""

from random import Random

from models.wire.link_settings import LinkSettings
from models.wire.patience import FAULTS_WITHIN_S, STEADY_AFTER_S, Patience, SessionFaults

SETTINGS = LinkSettings(host="h", port=1, client_id="a", first_wait_s=1.0, longest_wait_s=900.0)


class TopOfTheRange:
    """Draws the highest that may be drawn: the bounds themselves."""

    def uniform(self, low, high):
        self.low = low
        return high


def waits_of(seed, count=14):
    patience = Patience(Random(seed))
    return [patience.next_wait_s(SETTINGS) for _ in range(count)]


def test_waits_lie_anywhere_below_a_bound_that_doubles_up_to_a_quarter_of_an_hour():
    bounds = [min(900.0, 2.0**attempt) for attempt in range(14)]
    fleets = [waits_of(seed) for seed in range(300)]

    for attempt, bound in enumerate(bounds):
        waits = [waits[attempt] for waits in fleets]
        assert all(0.0 <= wait <= bound for wait in waits)
        # Uniform: of 300 draws the mean lies within 5 standard errors, bound / sqrt(12 * 300).
        assert abs(sum(waits) / 300 - bound / 2) < 5 * bound / 60.0
        assert min(waits) < 0.05 * bound
        assert max(waits) > 0.95 * bound


def test_connections_that_do_not_last_go_on_doubling_the_bound():
    patience = Patience(TopOfTheRange())
    bounds = []
    for number in range(12):
        bounds.append(patience.next_wait_s(SETTINGS))
        patience.came_online(100.0 * number)
        patience.was_lost(100.0 * number + STEADY_AFTER_S - 1)

    assert bounds == [min(900.0, 2.0**number) for number in range(12)]


def test_a_connection_that_stood_begins_the_bound_anew_unless_another_took_it():
    patience = Patience(TopOfTheRange())
    for _ in range(5):
        patience.next_wait_s(SETTINGS)
    patience.came_online(0.0)
    patience.was_lost(STEADY_AFTER_S, counts_as_good=False)
    patience.was_lost(10 * STEADY_AFTER_S)
    assert patience.next_wait_s(SETTINGS) == 32.0

    patience.came_online(1000.0)
    patience.was_lost(1000.0 + STEADY_AFTER_S)
    assert patience.next_wait_s(SETTINGS) == 1.0


def test_where_connecting_is_too_dear_waits_are_the_longest():
    jitter = TopOfTheRange()
    patience = Patience(jitter)
    patience.is_spent = lambda: True

    assert patience.next_wait_s(SETTINGS) == 900.0
    assert jitter.low == 450.0


def test_only_faults_close_together_are_blamed_on_the_session():
    faults = SessionFaults()
    for year in range(5):
        faults.note(year * 31_536_000.0)
        assert not faults.are_too_many
    faults.note(4 * 31_536_000.0 + FAULTS_WITHIN_S)
    assert faults.are_too_many
    faults.forget()
    assert not faults.are_too_many
