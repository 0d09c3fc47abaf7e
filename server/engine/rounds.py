"""What a run of federated rounds is: its configuration, what is kept of a round, how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from models.wire.rounds import LocalRecipe
from privacy import PrivacyPolicy, StreamPolicy, policy_for
from privacy.count_budget import count_channels
from privacy.policy import GREATEST_EPSILON, least_cohort, record_policy

from ..streams.stream_terms import StreamTerms
from .cohorts import Schedule
from .group_rule import GroupedTerms, GroupRuleName
from .server_optimizer import ServerRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.wire.rounds import NodeFailure
    from privacy import CountChannel

NoiseName = Literal["correlated", "independent"]
DEVICES_PER_OWNER = 5
LONGEST_DEADLINE_S = 604_800
SILENT_ROUNDS = 3
"""Rounds without any good reply, one after the other, that end a run."""


class RoundsError(Exception):
    """Root of the errors that stop a run of rounds.

    Attributes:
        exit_code: The process exit code a command ends with when this error reaches it.
    """

    exit_code = 1


class FleetSpentError(RoundsError):
    """Too few devices may still be invited to a step; nothing of it left.

    Who is enrolled is fixed for a stream: more devices can only join a new one.

    Attributes:
        index: the step.
        found: how many may be.
        wanted: n.
        least: how many must be.
    """

    def __init__(self, *, index: int, found: int, wanted: int, least: int) -> None:
        """Keep the facts beside the message."""
        self.index, self.found, self.wanted, self.least = index, found, wanted, least
        super().__init__(
            f"round {index}: {found} of {wanted} devices may be invited, and {least} must be: the "
            "others have spent their participations or were invited too recently; end it with "
            "fedcell rounds cancel and open a new one, over more devices or with fewer to a round"
        )


class NoAnswerError(RoundsError):
    """Not one good reply came to several rounds in a row, or to a whole run.

    Attributes:
        index: the last of them.
        refused: how many replies were refused, by reason.
        first_failure: why the first failing node failed, if any did.
    """

    exit_code = 6

    def __init__(
        self,
        *,
        index: int,
        silent: int,
        refused: Mapping[str, int],
        first_failure: NodeFailure | None,
    ) -> None:
        """Keep the facts beside the message."""
        self.index = index
        self.refused = dict(refused)
        self.first_failure = first_failure
        counts = ", ".join(f"{count} {reason}" for reason, count in refused.items()) or "none came"
        said = f": {first_failure}" if first_failure else ""
        times = "" if silent == 1 else f" to {silent} rounds in a row"
        super().__init__(f"round {index}: no good reply{times} ({counts}){said}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsConfig:
    """Everything that decides a run of rounds, apart from data and randomness.

    Attributes:
        stream: identifier of the run; a new one for every run.
        num_rounds: T.
        cohort_size: n, devices invited to each round, and the divisor.
        clipping_norm: C, or C_0 where it adapts.
        epsilon: ε_release of a device's whole life, or None for a comparison without noise.
        delta: its δ.
        noise: correlated between steps, or independent, for comparison only.
        update_share: part of μ² that updates may use; the rest is for counts, which the policy
            then names.
        count_years: for how long counts are asked, where updates leave budget for them.
        max_participations: k for life; None takes what the schedule asks of a device.
        max_devices_per_owner: most devices of one owner in the stream, where owners are known.
        holds_out: whether devices that never train are behind the nodes and stay out of rounds;
            where a fleet's files are split beforehand, none is.
        target_quantile: γ of a clipping norm that adapts; None keeps C.
        min_replies: least devices that must answer a round, else it is noise alone.
        group_rule: median or trimmed mean over groups of nodes, for comparison only; none is usual.
        num_groups: G, where there is a rule.
        patience: looks at public data without gain that end the run early; 0 never ends it.
        recipe: how devices train.
        server: how released updates move the weights.
        record_delta: δ of the record-level statement.
        deadline_s: how long a round waits for replies.
        evaluate_every: rounds between two looks at the held-out part; the last round always.

    Raises:
        ValueError: replies, looks or a deadline are asked for that cannot be.
    """

    stream: str
    num_rounds: int
    cohort_size: int
    clipping_norm: float
    epsilon: float | None
    delta: float
    recipe: LocalRecipe = field(default_factory=LocalRecipe)
    server: ServerRecipe = field(default_factory=ServerRecipe)
    record_delta: float = 1e-5
    deadline_s: float = 600.0
    evaluate_every: int = 1
    noise: NoiseName = "correlated"
    update_share: float = 1.0
    count_years: float = 2.0
    max_participations: int | None = None
    max_devices_per_owner: int = DEVICES_PER_OWNER
    holds_out: bool = False
    target_quantile: float | None = None
    min_replies: int = 1
    patience: int = 0
    group_rule: GroupRuleName = "none"
    num_groups: int = 8

    def __post_init__(self) -> None:
        """Refuse replies and looks that cannot come."""
        if not 1 <= self.min_replies <= max(self.cohort_size, 1):
            raise ValueError(
                f"min_replies must lie in 1..{self.cohort_size} (the cohort), "
                f"got {self.min_replies}"
            )
        if not 0.0 < self.deadline_s <= LONGEST_DEADLINE_S:
            raise ValueError(
                f"deadline_s must lie above 0 and be at most {LONGEST_DEADLINE_S} (a week), "
                f"got {self.deadline_s:g}"
            )
        if self.evaluate_every < 1:
            raise ValueError(f"evaluate_every must be at least 1, got {self.evaluate_every}")
        if self.patience < 0:
            raise ValueError(f"patience must be at least 0, got {self.patience}")
        if self.has_group_rule and self._is_correlated:
            raise ValueError("group_rule needs independent noise: a median breaks a correlation")

    def schedule(self, population_size: int) -> Schedule:
        """Return the public schedule over so many enrolled devices."""
        return Schedule(
            population_size=population_size,
            cohort_size=self.cohort_size,
            num_rounds=self.num_rounds,
        )

    def policy(self, schedule: Schedule) -> PrivacyPolicy | None:
        """Return σ, k, b and the budget, with σ from (ε, δ, k); None without noise.

        Raises:
            ValueError: a number is out of bounds, or k is less than the schedule asks of a device.
        """
        if self.target_quantile is not None and (self.epsilon is None or not self._is_correlated):
            raise ValueError(
                "target_quantile needs correlated noise: the norm is chosen in private"
            )
        if self.epsilon is None:
            return None
        if self.epsilon > GREATEST_EPSILON:
            raise ValueError(f"epsilon must be at most {GREATEST_EPSILON:g}, got {self.epsilon:g}")
        most = self.max_participations or schedule.participations
        if most < schedule.participations:
            raise ValueError(
                f"max_participations must be at least {schedule.participations} (to so many rounds "
                f"this schedule invites a device), got {most}"
            )
        return policy_for(
            epsilon=self.epsilon,
            delta=self.delta,
            max_participations=most,
            clipping_norm=self.clipping_norm,
            min_separation=schedule.min_separation,
            min_cohort_size=least_cohort(self.cohort_size),
            update_share=self.update_share,
            bands=min(schedule.min_separation, self.num_rounds) if self._is_correlated else 1,
            target_quantile=self.target_quantile,
        )

    def terms(self, schedule: Schedule) -> StreamTerms:
        """Return the constants of the run's stream."""
        privacy = self.policy(schedule)
        if self.has_group_rule:
            return GroupedTerms(
                stream=self.stream,
                num_rounds=self.num_rounds,
                cohort_size=self.cohort_size,
                clipping_norm=self.clipping_norm,
                privacy=privacy,
                policy=None,
                num_groups=self.num_groups,
            )
        if privacy is None or not self._is_correlated:
            return StreamTerms(
                stream=self.stream,
                num_rounds=self.num_rounds,
                cohort_size=self.cohort_size,
                clipping_norm=self.clipping_norm,
                privacy=privacy,
                policy=None,
            )
        policy = StreamPolicy(
            stream=self.stream,
            num_rounds=self.num_rounds,
            cohort_size=self.cohort_size,
            privacy=privacy,
            record=record_policy(self.recipe),
            channels=self._channels(privacy),
            max_devices_per_owner=self.max_devices_per_owner,
            min_replies=self.min_replies,
        )
        return StreamTerms.under(policy)

    def _channels(self, privacy: PrivacyPolicy) -> tuple[CountChannel, ...]:
        """Counts out of what updates leave; none where they leave nothing."""
        if self.update_share >= 1.0:
            return ()
        return count_channels(
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            update_share=self.update_share,
            years=self.count_years,
        )

    @property
    def has_group_rule(self) -> bool:
        """Whether sums of groups are kept apart, for a median or trimmed mean of them."""
        return self.group_rule != "none"

    @property
    def _is_correlated(self) -> bool:
        return self.noise == "correlated"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What is kept of one round.

    Attributes:
        index: step of the stream.
        invited: devices that were: n, the divisor, or fewer where places stayed empty.
        replied: invited devices whose node's reply was good; devices that sit out count too, since
            nobody can tell them apart.
        refused: how many replies were refused, by reason.
        most_participations: greatest number of rounds to which any one device was invited so far.
        epsilon_release: ε at the run's δ so far, with all else that its privacy home holds; None
            without noise (unbounded).
        metrics: on the held-out part, None where it was not looked at.
        seconds: how long the round took.
        noise_only: whether too few answered, so that what was released is noise.
        clipping_norm: C_t of the round where it adapts; None where it is fixed.
        weights_sha256: of the weights after the round, float32; empty in yesterday's records.
        ledger_hash: of the round's ledger entry; empty in yesterday's records.
    """

    index: int
    invited: int
    replied: int
    refused: dict[str, int]
    most_participations: int
    epsilon_release: float | None
    metrics: dict[str, float | None] | None
    seconds: float
    noise_only: bool = False
    clipping_norm: float | None = None
    weights_sha256: str = ""
    ledger_hash: str = ""
