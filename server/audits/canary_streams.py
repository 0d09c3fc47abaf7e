"""Canaries in real streams: a privacy home, its counts, the stream's files, ledger and noise.

Each stream has a folder and a home of its own, which are gone once it has run. One device of the
home stands for all canaries of the stream: home, schedule and ledger look at identifiers and past
alone, in which canaries do not differ. What they send differs, and meets clipping, grid and sum one
by one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from privacy import OperatingSystemNoise, UpdateGrid, clip_update
from privacy.accountant import mu_of_participations, mu_of_releases
from privacy.audit.canaries import CanaryRun
from privacy.audit.parts import AggregationParts
from privacy.budget import ParticipationHistory, StepOffer, step_refusal
from privacy.errors import PrivacyError

from ..engine.aggregation import CohortSum
from ..engine.cohorts import CohortHistory, Schedule, invitation_order, select_cohort
from ..engine.server_optimizer import OptimizerState
from ..privacy_home.privacy_errors import PrivacyHomeError
from ..privacy_home.privacy_ledger import open_home
from ..streams.stream_files import new_nonce
from ..streams.stream_state import begin_stream, resume_stream
from ..streams.stream_terms import OperatingSystemKeys, StreamTerms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from privacy import NoiseSource, ReleaseNoise, StreamPolicy
    from privacy.audit.parts import ReleasingStream
    from privacy.streams import CorrelatedNoise

    from ..privacy_home.participation_counts import LifeCounts
    from ..streams.stream_state import StreamState

COHORT_SIZE: Final = 2
"""Devices that a canary's stream invites to a step; one of them never answers."""
CANARY_LENGTH: Final = 10.0
"""Length of a canary's update in C before it is clipped."""
CANARY_ROWS: Final = 365
"""Training rows of a canary, the most that a device can have in a year."""
_CANARY: Final = "canary"
_MEMORY: Final = "/dev/shm"  # noqa: S108 - a folder of a random name is made there, for its owner alone
"""Where Linux keeps files in memory: an audited stream outlives no crash, so no disk need wait."""
_REFUSED: Final = (PrivacyError, PrivacyHomeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedStream:
    """What a stream of canaries came to.

    Attributes:
        run: what it released.
        invited: steps to which the home let the canary be invited.
        claim: μ by the entries of its ledger; 0 where nothing was released.
        broken_off: why it ended before its last step; empty where it did not.
        forgotten: what was released before the folder was put back; None where it never was.
        put_back_to: first step that was played a second time.
    """

    run: CanaryRun
    invited: tuple[int, ...]
    claim: float
    broken_off: str
    forgotten: CanaryRun | None = None
    put_back_to: int = 0


def honest_parts() -> AggregationParts:
    """Return the parts that production runs."""
    return AggregationParts(
        clip=clip_update,
        weigh=lambda _num_rows: 1,
        open_noise=_open_noise,
        release=_release,
        counted=lambda _home: None,
        claim=policy_claim,
        draw_nonce=new_nonce,
    )


def policy_claim(policy: StreamPolicy) -> float:
    """The μ that a policy promises a device that takes part as often as the schedule lets it."""
    privacy = policy.privacy
    taken = min((policy.num_rounds - 1) // privacy.min_separation + 1, privacy.max_participations)
    return mu_of_participations(
        noise_multiplier=privacy.noise_multiplier,
        participations=taken,
        clip_noise_multiplier=privacy.clip_noise_multiplier,
    )


def run_stream(
    policy: StreamPolicy, parts: AggregationParts, *, canaries: int, coins: NoiseSource
) -> AuditedStream:
    """Run one stream to its end, with a canary on each coordinate and a hostile scheduler.

    The scheduler offers the home a canary at every step; where the home refuses, the cohort is what
    production's schedule chooses. A canary whose coin says "out" sends zeros.

    Args:
        policy: of the stream; its cohort is replaced by that of an audit.
        parts: real or broken.
        canaries: number of canaries, and width of the stream.
        coins: of the canaries.
    """
    privacy = replace(policy.privacy, min_cohort_size=COHORT_SIZE)
    policy = replace(policy, cohort_size=COHORT_SIZE, privacy=privacy)
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fedcell-audit-", dir=memory) as folder:
        return _CanaryStream(Path(folder), policy, parts, canaries).run(coins)


def steps_by_schedule(policy: StreamPolicy) -> tuple[int, ...]:
    """The steps for which the server's schedule alone chooses a device that it may always have."""
    history, taken = CohortHistory.empty(1), []
    for index in range(policy.num_rounds):
        chosen = select_cohort(
            np.arange(1),
            schedule=Schedule(population_size=1, cohort_size=1, num_rounds=policy.num_rounds),
            history=history,
            index=index,
            max_participations=policy.privacy.max_participations,
            min_separation=policy.privacy.min_separation,
        )
        if len(chosen):
            history = history.after(chosen, index=index)
            taken.append(index)
    return tuple(taken)


def steps_by_device(policy: StreamPolicy) -> tuple[int, ...]:
    """The steps that the device's rule alone admits, when every one is offered."""
    history, taken = ParticipationHistory(), []
    for index in range(policy.num_rounds):
        offer = StepOffer(
            stream=policy.stream,
            index=index,
            clipping_norm=policy.privacy.first_norm,
            cohort_size=policy.cohort_size,
            record=policy.record,
            has_norm_bit=policy.privacy.adaptive_clipping is not None,
        )
        if step_refusal(policy, offer=offer, history=history) is None:
            history = history.after(
                index,
                noise_multiplier=policy.privacy.noise_multiplier,
                clip_noise_multiplier=policy.privacy.clip_noise_multiplier,
            )
            taken.append(index)
    return tuple(taken)


def num_beyond_rules(policy: StreamPolicy, taken: Sequence[int]) -> int:
    """Count the participations that lie too close to the one before, or beyond the k-th."""
    privacy = policy.privacy
    close = sum(later - earlier < privacy.min_separation for earlier, later in pairwise(taken))
    return close + max(0, len(taken) - privacy.max_participations)


class _Keys:
    """Keys as in production; the noise under them is the audited part."""

    def __init__(self, parts: AggregationParts) -> None:
        self._parts = parts

    def new_key(self, policy: StreamPolicy) -> bytes:
        return OperatingSystemKeys().new_key(policy)

    def noise(
        self,
        key: bytes,  # noqa: ARG002 - the part opens a stream under a key of its own
        policy: StreamPolicy,
        *,
        next_index: int,  # noqa: ARG002 - no audited stream is taken up again
        size: int,  # noqa: ARG002 - nothing is replayed
    ) -> CorrelatedNoise:
        noise: CorrelatedNoise = self._parts.open_noise(policy)  # type: ignore[assignment]
        return noise


@dataclass(slots=True)
class _Life:
    """What one life of a stream came to: releases, steps with a canary invited, and answered."""

    releases: list[NDArray[np.float64]] = field(default_factory=list)
    invited: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)


def put_back(copy: Path, folder: Path) -> None:
    """Write what differs back into the files that are there, and remove what was not: a restore.

    No file is another afterwards, so that nothing shows it.
    """
    for path in sorted(folder.rglob("*")):
        old = copy / path.relative_to(folder)
        if path.is_dir():
            continue
        if not old.exists():
            path.unlink()
        elif path.read_bytes() != old.read_bytes():
            path.write_bytes(old.read_bytes())


class _CanaryStream:
    """One stream of canaries in a folder of its own.

    Where the clipping norm adapts, canaries say nothing of it: what its bits release is noise,
    so that updates are looked at under a norm that moves from step to step.
    """

    def __init__(
        self, folder: Path, policy: StreamPolicy, parts: AggregationParts, canaries: int
    ) -> None:
        self._policy, self._parts, self._width = policy, parts, canaries
        self._grid = UpdateGrid(clipping_norm=policy.privacy.clipping_norm)
        self._state = OptimizerState.start(np.zeros(canaries))
        # A stream that is taken up again needs its own key; the noise is real there.
        self._keys = OperatingSystemKeys() if parts.is_put_back else _Keys(parts)
        self._folder, run = folder, folder / "run"
        run.mkdir()
        self._home_folder = folder / "home"
        self._stream: StreamState = begin_stream(
            run,
            open_home(self._home_folder),
            StreamTerms.under(policy),
            start=self._state,
            keys=self._keys,
            source=OperatingSystemNoise(),
        )
        self._stream.draw_nonce = parts.draw_nonce
        others = COHORT_SIZE * policy.num_rounds
        self._devices = [_CANARY, *(f"other-{number}" for number in range(others))]
        self._order = invitation_order(self._devices, stream=policy.stream)
        self._answered: set[int] = set()

    def run(self, coins: NoiseSource) -> AuditedStream:
        included = coins.uniform(self._width) < 0.5
        updates = CohortSum.empty(self._stream.size)
        for coordinate in np.flatnonzero(included):
            updates.add(self._update(int(coordinate)), num_devices=1)
        life, forgotten = _Life(), _Life()
        back_to, broken_off = 2 * self._policy.privacy.min_separation, ""
        try:
            self._play(life, range(back_to if self._parts.is_put_back else 0), updates)
            if self._parts.is_put_back:
                forgotten = self._play_and_go_back(life, back_to, updates)
            self._play(life, range(len(life.releases), self._policy.num_rounds), updates)
        except _REFUSED as error:
            broken_off = f"step {len(life.releases)}: {error}"
        finally:
            self._stream.close()
        events = [entry.event for entry in self._stream.home.entries]
        return AuditedStream(
            run=self._seen(life, included),
            invited=tuple(life.invited),
            claim=mu_of_releases(events),
            broken_off=broken_off,
            forgotten=self._seen(forgotten, included) if self._parts.is_put_back else None,
            put_back_to=back_to,
        )

    def _play(self, life: _Life, steps: Iterable[int], updates: CohortSum) -> None:
        """Play steps; a canary answers each step once, whoever asks for it again."""
        for index in steps:
            if self._invite(index):
                life.invited.append(index)
            answers = index in life.invited[-1:] and index not in self._answered
            if answers:
                self._answered.add(index)
                life.answered.append(index)
            life.releases.append(self._step(updates if answers else None))

    def _play_and_go_back(self, life: _Life, back_to: int, updates: CohortSum) -> _Life:
        """Play on for as many steps as lie between two of a canary, and put everything back.

        Returns:
            The life that the server forgot, from its first step.
        """
        copy = self._folder.with_name(f"{self._folder.name}-copy")
        shutil.copytree(self._folder, copy)
        try:
            forgotten = _Life(list(life.releases), list(life.invited), list(life.answered))
            self._play(forgotten, range(back_to, back_to + self._policy.privacy.bands), updates)
            self._stream.close()
            put_back(copy, self._folder)
        finally:
            shutil.rmtree(copy)
        self._stream, self._state = resume_stream(
            self._folder / "run",
            open_home(self._home_folder),
            self._stream.terms,
            keys=self._keys,
        )
        self._stream.draw_nonce = self._parts.draw_nonce
        return forgotten

    def _seen(self, life: _Life, included: NDArray[np.bool_]) -> CanaryRun:
        shown = np.array(life.releases).reshape(len(life.releases), self._width)
        admitted = np.isin(np.arange(len(life.releases)), life.answered)
        return CanaryRun(releases=shown, included=included, admitted=admitted)

    def _invite(self, index: int) -> bool:
        """Offer the home the canary whatever its past; else what the schedule chooses."""
        try:
            self._stream.invite(
                device_ids=self._devices,
                choose=lambda _counts: [0, *range(index + 1, index + COHORT_SIZE)],
            )
        except PrivacyError:
            counted, last = self._stream.home.stream_history(self._policy.stream, self._devices)
            past = CohortHistory(participations=counted, last_index=last)
            cohort = self._stream.invite(
                device_ids=self._devices,
                choose=lambda counts: self._scheduled(counts, past, index=index),
            )
        else:
            cohort = (_CANARY,)
        self._parts.counted(self._home_folder)
        return _CANARY in cohort

    def _scheduled(
        self, counts: LifeCounts, past: CohortHistory, *, index: int
    ) -> NDArray[np.intp]:
        cost = self._stream.terms.cost
        return select_cohort(
            self._order,
            schedule=Schedule(
                population_size=len(self._devices),
                cohort_size=COHORT_SIZE,
                num_rounds=self._policy.num_rounds,
            ),
            history=past,
            index=index,
            max_participations=cost.max_participations,
            min_separation=cost.min_separation,
            may=counts.may_go_on(cost),
        )

    def _step(self, updates: CohortSum | None) -> NDArray[np.float64]:
        """Commit, charge, release and keep one step; returned is n times the release, in C."""
        total = CohortSum.empty(self._stream.size)
        if updates is not None:
            total.add(updates.total, num_devices=updates.num_replied)
        self._stream.commit(total.total)
        self._stream.charge(datetime.now(UTC))
        mean = self._parts.release(self._stream, num_invited=COHORT_SIZE, num_replied=1)
        in_unit = self._stream.norm.in_unit(mean)
        self._stream.checkpoint(self._state)
        return in_unit * COHORT_SIZE / self._grid.clipping_norm

    def _update(self, coordinate: int) -> NDArray[np.int64]:
        raw = np.zeros(self._stream.size)
        raw[coordinate] = CANARY_LENGTH * self._grid.clipping_norm
        clipped = self._parts.clip(raw, clipping_norm=self._grid.clipping_norm)
        return self._grid.quantise(clipped) * self._parts.weigh(CANARY_ROWS)


def _open_noise(policy: StreamPolicy) -> ReleaseNoise:
    keys = OperatingSystemKeys()
    return keys.noise(keys.new_key(policy), policy, next_index=0, size=0)


def _release(stream: ReleasingStream, *, num_invited: int, num_replied: int) -> NDArray[np.float64]:
    del num_invited, num_replied  # who answered decides nothing, and the stream knows its divisor
    return stream.release()
