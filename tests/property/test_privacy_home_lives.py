"""What a real privacy home tells against what left it, over random lives with kills and restores.

The oracle is a journal of who was asked for what and of what was released, and the norm of the
explicit factors in exact arithmetic. The home never tells less than what left. Where its counts
were never made anew, it tells no more than a thousandth above what it asked for.
"""

from collections import Counter

import mpmath
import pytest

from privacy import release_epsilon
from server.runs.report_layout import accountable
from tests.support.random_homes import DEVICES, random_life
from tests.support.random_schedules import DELTA, exact_epsilon

LIVES = 1_000
MOVES, FEW_MOVES = 8, 6
SLICES = 20


def assert_home_tells_what_left(seed, folder, *, moves):
    """One life; returns what happened in it."""
    life = random_life(seed, folder, moves=moves)
    home = life.require_told()
    with mpmath.workdps(30):
        told = release_epsilon(accountable(home.entries), delta=DELTA)
        assert told >= exact_epsilon(max(life.journal.spent(one, released=True) for one in DEVICES))
        asked = exact_epsilon(max(life.journal.spent(one, released=False) for one in DEVICES))
        assert life.is_overcharged or told <= asked * mpmath.mpf("1.001")
    return life.seen


@pytest.mark.slow
@pytest.mark.parametrize("tenth", range(5))
def test_home_tells_what_left_over_random_lives(tmp_path, tenth):
    seen = Counter()
    for seed in range(20 * tenth, 20 * (tenth + 1)):
        seen += assert_home_tells_what_left(seed, tmp_path / str(seed), moves=FEW_MOVES)
    assert seen["released steps"]
    assert seen["resumed"]


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SLICES))
def test_home_tells_what_left_over_all_random_lives(tmp_path, part):
    seen = Counter()
    for seed in range(part, LIVES, SLICES):
        seen += assert_home_tells_what_left(seed, tmp_path / str(seed), moves=MOVES)
    for what in (
        "released steps",
        "released counts",
        "killed in a charge",
        "killed in a count",
        "_rebuild: done",
        "_rebuild: HomeBrokenError",
        "_accept_moved: HomeBrokenError",
        "_repair: done",
        "newest copy put back",
        "participations.db _in_place: HomeBrokenError",
        "ledger.jsonl _in_place: HomeBrokenError",
        "moved: HomeBrokenError",
        "lost participations.db: HomeBrokenError",
    ):
        assert seen[what], what
