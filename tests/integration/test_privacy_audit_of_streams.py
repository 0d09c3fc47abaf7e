"""The audit of what production's streams release: through the privacy home, files, crash and all.

`fedcell privacy audit` calls the parts of an aggregation itself. Here the same canaries go the
whole way of a run: counted and invited by the home, committed, charged, released, checkpointed, and
taken up again from files after a stop in the middle of a step.
"""

from datetime import UTC, datetime

import numpy as np
import pytest

from privacy import OperatingSystemNoise, UpdateGrid, clip_update
from privacy.accountant import mu_of_releases
from privacy.audit.bounds import mu_lower_bound
from privacy.audit.canaries import (
    CanaryRun,
    canary_scores,
    correlation_bound,
    greatest_correlation,
    residuals,
)
from privacy.banded_factor import band_coefficients
from privacy.ledger import events_of
from server.audits.canary_audit import NOISE_ALPHA, audited_policy
from server.engine.aggregation import CohortSum
from server.engine.server_optimizer import OptimizerState
from server.privacy_home.privacy_ledger import open_home
from server.streams.stream_state import StepPhase, begin_stream, resume_stream
from server.streams.stream_terms import OperatingSystemKeys, StreamTerms

WIDTH = 2_000
DEVICE = "canary"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
KEYS = OperatingSystemKeys()


class Interrupted:
    """A stream that is let go of now and then, and taken up from its files."""

    def __init__(self, folder, terms):
        self.folder, self.terms = folder, terms
        self.home = open_home(folder / "home")
        self.weights = OptimizerState.start(np.zeros(WIDTH, np.float32))
        (folder / "run").mkdir()
        self.state = begin_stream(
            folder / "run",
            self.home,
            terms,
            start=self.weights,
            keys=KEYS,
            source=OperatingSystemNoise(),
        )

    def stop_and_go_on(self):
        self.state.close()
        self.home = open_home(self.folder / "home")
        self.state, _ = resume_stream(self.folder / "run", self.home, self.terms, keys=KEYS)

    def may_invite(self, index):
        """Whether the home's count leaves the canary anything at this step, for a greedy server."""
        taken, last = self.home.stream_history(self.terms.stream, [DEVICE])
        privacy = self.terms.policy.privacy
        return bool(
            taken[0] < privacy.max_participations and index - last[0] >= privacy.min_separation
        )


def run_of_canaries(folder, policy, *, stops=()):
    terms = StreamTerms(
        stream=policy.stream,
        num_rounds=policy.num_rounds,
        cohort_size=policy.cohort_size,
        clipping_norm=policy.privacy.clipping_norm,
        privacy=policy.privacy,
        policy=policy,
    )
    grid = UpdateGrid(clipping_norm=policy.privacy.clipping_norm)
    included = OperatingSystemNoise().uniform(WIDTH) < 0.5
    releases = np.empty((policy.num_rounds, WIDTH))
    admitted = np.zeros(policy.num_rounds, dtype=bool)
    stream = Interrupted(folder, terms)
    for index in range(policy.num_rounds):
        admitted[index] = stream.may_invite(index)
        first = 0 if admitted[index] else 1
        stream.state.invite(
            device_ids=[DEVICE, *(f"{index}-{other}" for other in range(policy.cohort_size))],
            choose=lambda _, first=first: range(first, first + policy.cohort_size),
        )
        total = CohortSum.empty(WIDTH)
        for coordinate in np.flatnonzero(included) if admitted[index] else ():
            raw = np.zeros(WIDTH)
            raw[coordinate] = 7.0
            clipped = clip_update(raw, clipping_norm=grid.clipping_norm)
            total.add(grid.quantise(clipped), num_devices=1)
        stream.state.commit(total.total)
        if index in stops:
            stream.stop_and_go_on()
            assert stream.state.phase is StepPhase.COMMITTED
        stream.state.charge(NOW)
        mean = stream.state.release()
        stream.state.checkpoint(stream.weights)
        releases[index] = mean * policy.cohort_size / grid.clipping_norm
    run = CanaryRun(releases=releases, included=included, admitted=admitted)
    return run, events_of(stream.home.entries)


@pytest.mark.parametrize("stops", [(), (1, 2, 7, 13)], ids=["whole", "interrupted"])
def test_streams_of_a_run_reveal_no_more_than_their_ledger_says(tmp_path, stops):
    policy = audited_policy(4.0, cohort_size=50)

    run, events = run_of_canaries(tmp_path, policy, stops=stops)

    factor = band_coefficients(policy.privacy.bands)
    claim = mu_of_releases(events)
    bound = mu_lower_bound(canary_scores(run, factor), run.included, alpha=1e-3)
    noise = residuals(run, factor)
    assert np.flatnonzero(run.admitted).tolist() == [0, 3, 6, 9]
    assert claim == pytest.approx(4.0)
    assert 0.6 * claim < bound.mu <= claim
    assert greatest_correlation(noise) < correlation_bound(
        rows=len(noise), size=WIDTH, alpha=NOISE_ALPHA
    )
    assert noise.std() == pytest.approx(policy.privacy.noise_multiplier, rel=0.03)
