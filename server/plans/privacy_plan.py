"""What a privacy plan says, in words and as JSON; every ε beside what it means."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from models.held_out_devices import HELD_OUT_SHARE
from models.network_shape import NUM_WEIGHTS
from models.private_histograms import SCORE_EDGES
from privacy import RecordPolicy
from privacy.count_budget import METRICS
from privacy.planned_metrics import FIGURES, AssumedScores, expected_estimate, least_devices
from privacy.planner import PlanRequest
from privacy.simulated_quality import run_that_speaks_for, simulated_runs
from privacy.statement import OF_PLAN

from ..engine.optimizer_gain import measure_gain
from ..engine.server_optimizer import OPTIMIZER_NAMES
from ..engine.training_recipes import FROM_TRAINED_WEIGHTS

if TYPE_CHECKING:
    import datetime as dt

    from privacy.count_intervals import Estimate
    from privacy.planner import Plan
    from privacy.simulated_quality import SimulatedRun

    from ..engine.optimizer_gain import OptimizerGain

SCORES: Final = (
    "a score with this AUC, whose log-odds are normal in both groups, at this prevalence"
)
NO_SIMULATION: Final = "no simulation covers this plan; run one before promising a quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricOutlook:
    """What held-out devices will say of one figure over the whole plan.

    Attributes:
        figure: name.
        least_held_out: devices that never train from which on it is measurable; None for never.
        expected: with the devices that this fleet holds out.
    """

    figure: str
    least_held_out: int | None
    expected: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A plan with what is told beside it.

    Attributes:
        plan: the schedule.
        start: day of the first round.
        scores: assumed of the model, for the metrics' outlook.
        metrics: outlook of each figure; empty where nothing is held out.
        simulated: the measured run that speaks for the plan, or None.
        gains: measured of correlated noise under each server optimiser.
    """

    plan: Plan
    start: dt.date
    scores: AssumedScores
    metrics: tuple[MetricOutlook, ...]
    simulated: SimulatedRun | None
    gains: tuple[OptimizerGain, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        plan, chosen = self.plan, self.plan.schedule
        return {
            "schema_version": 1,
            "request": asdict(plan.request),
            "schedule": asdict(chosen)
            | {
                "num_rounds": plan.request.num_rounds,
                "training_devices": plan.request.training_devices,
                "held_out_devices": plan.request.held_out_devices,
                "starts": self.start.isoformat(),
                "first_retirement": plan.first_retirement(start=self.start).isoformat(),
                "last_retirement": plan.last_retirement(start=self.start).isoformat(),
            },
            "rule_of_thumb": {
                "least_cohort": chosen.least_cohort(plan.request.weights),
                "kept": plan.keeps_rule,
                "least_devices": plan.least_devices_for_rule,
            },
            "signal_to_noise": plan.signal_to_noise,
            "optimizer_gains": [gain.to_json() for gain in self.gains],
            "epsilon_release": {
                "epsilon": plan.epsilon,
                "delta": plan.request.delta,
                **OF_PLAN.to_json(),
            },
            "epsilon_server": None,
            "counts": [asdict(channel) for channel in plan.channels],
            "metrics": {
                "assumed": asdict(self.scores) | {"meaning": SCORES},
                "figures": [asdict(one) for one in self.metrics],
            },
            "simulated_quality": None
            if self.simulated is None
            else self.simulated.to_json() | {"gain_kept": self.simulated.gain_kept},
        }

    def rows(self) -> dict[str, str]:
        """Return the report as a table: what, and what it comes to."""
        return self._schedule() | self._spending() | self._use()

    def _schedule(self) -> dict[str, str]:
        asked, chosen = self.plan.request, self.plan.schedule
        train, held_out = asked.training_devices, asked.held_out_devices
        weekly = f"{asked.rounds_a_week:g} a week for {asked.years:g} years"
        k, apart = chosen.participations, chosen.separation
        gain = chosen.independent_error / chosen.error
        agreed = f"{self.plan.signal_to_noise:.1f} after the last round, if all updates agreed"
        return {
            "devices": f"{asked.devices:,}: {train:,} train, {held_out:,} never do",
            "rounds": f"{asked.num_rounds} ({weekly})",
            "cohort n": f"{chosen.cohort_size:,} invited a round",
            "participations k": f"at most {k} a device, {apart} rounds or more apart (b)",
            "clipping norm C": self._clipping(),
            "noise": f"σ = {chosen.noise_multiplier:.3f}, {chosen.bands} bands (p)",
            "error a weight": f"{chosen.error:.3g} C, {gain:.2f} times below independent noise",
            "signal to noise": agreed,
            **{f"gain, {one.optimizer}": one.to_words() for one in self.gains},
            "rule n ≥ σ√P": self._rule(chosen.least_cohort(asked.weights)),
        }

    def _clipping(self) -> str:
        asked = self.plan.request
        if asked.target_quantile is None:
            return f"{asked.clipping_norm:g}, fixed"
        return (
            f"follows the {asked.target_quantile:g} quantile from {asked.clipping_norm:g} on; its "
            f"bits take {asked.bits_share:.0%} of what updates may use"
        )

    def _spending(self) -> dict[str, str]:
        asked, share = self.plan.request, self.plan.request.update_share
        table = {
            "ε_release": f"{self.plan.epsilon:.4g} at δ = {asked.delta:g}, all counts included",
            "ε_server": "unbounded until secure aggregation exists",
            "budget": f"updates {share:.0%} of μ², counts {1 - share:.0%}",
        }
        for channel in self.plan.channels:
            who = "devices that never train" if channel.held_out else "the others"
            often = f"{channel.max_answers} answers a device, from {who}"
            noise = f"σ = {channel.noise_multiplier:.2f} times the sensitivity"
            table[f"counts: {channel.name}"] = f"{often}, {noise}"
        return table

    def _use(self) -> dict[str, str]:
        table = {f"metric: {one.figure}": self._outlook(one) for one in self.metrics}
        first = self.plan.first_retirement(start=self.start)
        last = self.plan.last_retirement(start=self.start)
        table["devices retire"] = f"from {first}, all by {last}; then never again"
        table["expected quality"] = self._quality()
        return table

    def _rule(self, least_cohort: int) -> str:
        if self.plan.keeps_rule:
            return f"kept: {self.plan.schedule.cohort_size:,} ≥ {least_cohort:,}"
        least = self.plan.least_devices_for_rule
        fleet = "no number of devices keeps it" if least is None else f"{least:,} devices keep it"
        return (
            f"not kept: {self.plan.schedule.cohort_size:,} < {least_cohort:,}, so that a round is "
            f"mostly noise; {fleet}"
        )

    def _outlook(self, one: MetricOutlook) -> str:
        assumed = f"AUC {self.scores.auc:g}, prevalence {self.scores.prevalence:g}"
        needs = (
            "measurable with no fleet"
            if one.least_held_out is None
            else f"measurable from {one.least_held_out:,} held-out devices on"
        )
        here = self.plan.request.held_out_devices
        if not one.expected.is_measurable:
            return f"not measurable with {here:,}; {needs} ({assumed})"
        reach = (one.expected.high - one.expected.low) / 2
        return f"± {reach:.3f} with {here:,}; {needs} ({assumed})"

    def _quality(self) -> str:
        run = self.simulated
        if run is None:
            return NO_SIMULATION
        return (
            f"simulated with no less noise from {len(run.private_auc)} random starts "
            f"({run.devices:,} devices, {run.num_rounds} rounds of {run.cohort_size:,}, "
            f"ε = {run.epsilon:.3g} at δ = {run.delta:g}, updates alone): median AUC "
            f"{statistics.median(run.start_auc):.3f} → {statistics.median(run.private_auc):.3f}, "
            f"{run.gain_kept:.0%} of the noiseless gain"
        )


def plan_request(
    *,
    devices: int,
    epsilon: float,
    years: float,
    delta: float,
    rounds_a_week: float,
    most_a_year: float,
    dropout: float,
    weights: int = NUM_WEIGHTS,
    target_quantile: float | None = None,
) -> PlanRequest:
    """Complete what an operator decides by the recipe of rounds from trained weights."""
    local = FROM_TRAINED_WEIGHTS.local
    return PlanRequest(
        devices=devices,
        epsilon=epsilon,
        delta=delta,
        years=years,
        weights=weights,
        clipping_norm=FROM_TRAINED_WEIGHTS.clipping_norm,
        record=RecordPolicy(
            noise_multiplier=local.record_noise_multiplier,
            max_grad_norm=local.record_max_grad_norm,
            sampling_rate=local.sampling_rate,
            steps=local.steps,
            least_rows=local.least_rows,
        ),
        rounds_a_week=rounds_a_week,
        most_a_year=most_a_year,
        dropout=dropout,
        held_out_share=HELD_OUT_SHARE,
        target_quantile=target_quantile,
    )


def report_of_plan(plan: Plan, *, start: dt.date, auc: float, prevalence: float) -> PlanReport:
    """Add to a plan what metrics will be worth, and what simulations came to.

    Args:
        plan: the schedule.
        start: day of the first round.
        auc: assumed of the model.
        prevalence: assumed share of devices that fail within 30 days.
    """
    scores = AssumedScores(auc=auc, prevalence=prevalence, edges=SCORE_EDGES)
    policy = plan.policy(stream="plan")
    channels = [channel for channel in plan.channels if channel.name == METRICS]
    return PlanReport(
        plan=plan,
        start=start,
        scores=scores,
        metrics=tuple(
            MetricOutlook(
                figure=figure,
                least_held_out=least_devices(figure, scores, channel=channel),
                expected=expected_estimate(
                    figure, scores, devices=plan.request.held_out_devices, channel=channel
                ),
            )
            for channel in channels
            for figure in FIGURES
        ),
        simulated=run_that_speaks_for(
            simulated_runs(),
            weights=plan.request.weights,
            num_rounds=plan.request.num_rounds,
            signal_to_noise=plan.signal_to_noise,
        ),
        gains=tuple(
            measure_gain(
                policy,
                replace(FROM_TRAINED_WEIGHTS.server, optimizer=name),
                num_weights=plan.request.weights,
            )
            for name in OPTIMIZER_NAMES
        ),
    )
