"""How long a plan and a release of counts take, and how large a fleet private metrics need.

A plan is compared with what it is for, a start of the command line; a release of 10,000 answers
with the same sum without noise, intervals and ledger.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from models.private_histograms import SCORE_EDGES, evaluation_question
from models.wire.counts import Counted
from privacy import OperatingSystemNoise, RecordPolicy, planner
from privacy.count_budget import METRICS
from privacy.planned_metrics import FIGURES, AssumedScores, least_devices
from privacy.planner import PlanRequest, plan_for
from server.counts.count_release import CountCollection, count_tasks, release_counts
from server.counts.private_metrics import private_evaluation
from tests.support.figures import Figures

FIGURE = Figures("privacy")
ROUNDS = 7
DEVICES = 10_000
RECORD = RecordPolicy(
    noise_multiplier=1.0, max_grad_norm=1.0, sampling_rate=0.1, steps=5, least_rows=180
)


def request(**changes):
    usual = {
        "devices": 10_000,
        "epsilon": 2.0,
        "delta": 1e-8,
        "years": 2.0,
        "weights": 2500,
        "clipping_norm": 0.3,
        "record": RECORD,
    }
    return PlanRequest(**(usual | changes))


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_a_plan_takes_less_than_a_blink():
    """Cold: nothing is kept from the plan before."""
    weekly, daily = request(), request(years=10.0, rounds_a_week=7.0)
    seconds = {"weekly": [], "daily": []}
    for _ in range(ROUNDS):
        for name, asked in (("weekly", weekly), ("daily", daily)):
            planner._options_of.cache_clear()
            planner._least_errors.cache_clear()
            seconds[name].append(timed(lambda asked=asked: plan_for(asked)))

    for name, words, target in (
        ("weekly", "two years of weekly rounds", 0.5),
        ("daily", "ten years of daily rounds", 10.0),
    ):
        FIGURE.add(
            f"plan for 10,000 devices, {words}",
            statistics.median(seconds[name]),
            unit="s",
            target=target,
            better="lower",
            spread=(min(seconds[name]), max(seconds[name])),
        )
        assert statistics.median(seconds[name]) <= target


def _release(tasks, replies, channel):
    collection = CountCollection(tasks)
    for node_id, reply in replies.items():
        collection.add(node_id, reply)
    released = release_counts(
        collection,
        channel,
        most_answers=1,
        policy_digest="ab",
        source=OperatingSystemNoise(),
        charge=lambda event: "",
    )
    return private_evaluation([released], threshold=0.2)


def test_a_release_of_ten_thousand_answers():
    channel = plan_for(request()).channels[-1]
    question = evaluation_question(as_of_s=0, model_version="m-1")
    asked = [(f"d{number}", number) for number in range(DEVICES)]
    tasks = count_tasks(asked, channel=channel, index=0, question=question, policy="signed")
    rng = np.random.default_rng(1)
    replies = {}
    for number, place in enumerate(rng.integers(0, question.size, DEVICES)):
        vector = np.zeros(question.size, np.int64)
        vector[place] = 1
        replies[number] = (vector, Counted(channel=channel.name, index=0, num_devices=1))
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(timed(lambda: _release(tasks, replies, channel)))
        bare.append(timed(lambda: np.sum([vector for vector, _ in replies.values()], axis=0)))

    FIGURE.add(
        "release of 10,000 answers: judged, added, noised, told with intervals",
        statistics.median(ours),
        unit="s",
        target=1.0,
        better="lower",
        spread=(min(ours), max(ours)),
        against=f"numpy's sum of the same vectors: {statistics.median(bare):.4f} s",
    )
    assert statistics.median(ours) <= 1.0


def test_how_many_held_out_devices_private_metrics_need():
    for epsilon in (2.0, 8.0):
        channel = next(c for c in plan_for(request(epsilon=epsilon)).channels if c.name == METRICS)
        for prevalence in (0.01, 0.03):
            scores = AssumedScores(auc=0.85, prevalence=prevalence, edges=SCORE_EDGES)
            for figure in FIGURES:
                least = least_devices(figure, scores, channel=channel)
                FIGURE.add(
                    f"held-out devices from which {figure} is measurable: ε = {epsilon:g}, "
                    f"δ = 1e-8, two years, prevalence {prevalence:g}, AUC 0.85",
                    float(least),
                    unit="devices",
                    target=None,
                    better="lower",
                )
                assert least > 100
