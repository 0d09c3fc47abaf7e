"""Whatever a scheduler asks for, what is released stays within the policy, by the explicit norm."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy import BudgetExceededError, OperatingSystemNoise, release_epsilon
from privacy.accountant import gaussian_epsilon
from privacy.banded_factor import factor_matrix, sensitivity
from server.privacy_home.privacy_errors import StreamRefusedError
from server.privacy_home.privacy_ledger import open_home
from server.streams.stream_state import begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys
from tests.support.examples import examples
from tests.support.stream_crashes import (
    COHORT,
    DELTA,
    DEVICES,
    SEPARATION,
    start,
    terms_of,
    total_of,
)

NUM_ROUNDS = 9
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CHOICES = st.lists(
    st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=NUM_ROUNDS, max_size=24
)


def run_as_asked(folder, choices, stops):
    """Run a stream with cohorts that a scheduler chose at will; return who was in which step."""
    terms, home = terms_of("stream", NUM_ROUNDS), open_home(folder)
    stream = begin_stream(
        folder,
        home,
        terms,
        start=start(),
        keys=OperatingSystemKeys(),
        source=OperatingSystemNoise(),
    )
    taken = {device: set() for device in DEVICES}
    for number, chosen in enumerate(choices):
        if stream.next_index == NUM_ROUNDS:
            break
        index = stream.next_index
        try:
            cohort = stream.invite(device_ids=DEVICES, choose=lambda _, chosen=chosen: chosen)
        except (BudgetExceededError, StreamRefusedError):
            continue
        for device in cohort:
            taken[device].add(index)
        stream.commit(total_of(index), noise_only=number in stops)
        stream.charge(NOW)
        stream.release()
        stream.checkpoint(start())
        if number in stops:
            stream.close()
            stream, _ = resume_stream(folder, home, terms, keys=OperatingSystemKeys())
    stream.close()
    return terms, home, taken


@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(choices=CHOICES, stops=st.sets(st.integers(0, 20), max_size=3))
def test_no_scheduler_makes_a_stream_spend_more_than_its_ledger_says(choices, stops):
    with tempfile.TemporaryDirectory() as folder:
        terms, home, taken = run_as_asked(Path(folder), choices, stops)
        said = release_epsilon((entry.event for entry in home.entries), delta=DELTA)
        counted = home.life_counts(DEVICES).participations
    matrix = factor_matrix(NUM_ROUNDS, SEPARATION)
    norms = [sensitivity(matrix, steps) for steps in taken.values() if steps]
    exact = gaussian_epsilon(
        mu=max(norms, default=0.0) / terms.privacy.noise_multiplier, delta=DELTA
    )

    assert exact <= said * (1 + 1e-9)
    assert said <= terms.privacy.epsilon * (1 + 1e-9)
    assert counted.tolist() == [len(taken[device]) for device in DEVICES]
    for steps in taken.values():
        assert len(steps) <= terms.privacy.max_participations
        assert all(gap >= SEPARATION for gap in np.diff(sorted(steps)))
    assert all(len({d for d in DEVICES if i in taken[d]}) in {0, COHORT} for i in range(NUM_ROUNDS))
