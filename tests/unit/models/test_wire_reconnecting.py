"""How long a link waits between attempts: full jitter, so that no fleet comes back at once."""

from random import Random

from models.wire.link import Link, LinkSettings


def waits_of(seed, count=14):
    settings = LinkSettings(host="h", port=1, client_id="a", first_wait_s=1.0, longest_wait_s=900.0)
    link = Link(settings, jitter=Random(seed))
    return [link._next_wait_s() for _ in range(count)]


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
