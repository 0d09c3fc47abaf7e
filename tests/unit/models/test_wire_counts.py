"""Questions for counts, and what an answer may say beside its numbers."""

import json
from dataclasses import replace

import pytest

from models.private_histograms import evaluation_question, similar_devices_question
from models.wire.counts import (
    MOST_COUNTS,
    PROBABILITY,
    Bins,
    Counted,
    CountKind,
    CountQuestion,
    CountTask,
)
from models.wire.reference import COUNT_FIELDS, what_leaves
from models.wire.rounds import FLAT_ARRAY

DAY = 86_400
AS_OF = 20_000 * DAY
EVALUATION = evaluation_question(as_of_s=AS_OF, model_version="m-1")
DRIFT = CountQuestion(
    kind=CountKind.DRIFT,
    as_of_s=AS_OF,
    bins=(Bins("health_margin", (0.1, 0.5)), Bins("temp_spread", (5.0,))),
)


def task(**changes):
    fields = {
        "channel": "metrics",
        "index": 3,
        "cohort_size": 2,
        "device_ids": ("a", "b"),
        "question": EVALUATION,
        "policy": "{}",
    }
    return CountTask(**(fields | changes))


@pytest.mark.parametrize("question", [EVALUATION, similar_devices_question(as_of_s=AS_OF), DRIFT])
def test_a_question_survives_the_way_and_fixes_size_and_bound(question):
    assert CountQuestion.from_text(question.to_text()) == question
    assert CountTask.from_plain(task(question=question).to_plain()) == task(question=question)


def test_size_and_bound_follow_from_the_question_alone():
    assert (EVALUATION.size, EVALUATION.sensitivity_squared) == (20, 1)
    assert (DRIFT.size, DRIFT.sensitivity_squared) == (3 + 1 + 2 + 1, 2)
    similar = similar_devices_question(as_of_s=AS_OF)
    assert (similar.size, similar.sensitivity_squared) == (2 * 4 * 3, 1)


@pytest.mark.parametrize(
    ("name", "edges", "what"),
    [
        ("no such", (0.1,), "no such feature"),
        ("temp_spread", (), "at least one"),
        ("temp_spread", (float("nan"),), "finite"),
        ("temp_spread", (2.0, 1.0), "ascend"),
        ("temp_spread", (1.0, 1.0), "ascend"),
    ],
)
def test_bins_that_are_none_are_refused(name, edges, what):
    with pytest.raises(ValueError, match=what):
        Bins(name, edges)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"as_of_s": AS_OF + 1}, "midnight"),
        ({"bins": ()}, "at least one"),
        ({"bins": EVALUATION.bins * 2}, "each once"),
        ({"horizon_days": 0}, "above 0"),
        ({"model_version": ""}, "model_version"),
        ({"kind": CountKind.DRIFT}, "horizon_days must be 0"),
        ({"bins": (Bins("temp_spread", (5.0,)),)}, "probability alone"),
        ({"bins": (Bins(PROBABILITY, tuple(range(1, MOST_COUNTS))),)}, "at most"),
    ],
)
def test_a_question_without_bound_use_or_end_is_refused(changes, what):
    with pytest.raises(ValueError, match=what):
        replace(EVALUATION, **changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"kind":"other"}',
        EVALUATION.to_text().replace("30", '"30"'),
        EVALUATION.to_text().replace("}]", '}],"more":1'),
        "[" * 100_000,
    ],
)
def test_a_text_that_is_no_question_is_refused(text):
    with pytest.raises(ValueError):
        CountQuestion.from_text(text)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"channel": ""}, "channel"),
        ({"index": -1}, "index"),
        ({"device_ids": ("a", "a")}, "twice"),
        ({"cohort_size": 1}, "outnumber"),
    ],
)
def test_a_task_that_no_honest_server_sends_is_refused(changes, what):
    with pytest.raises(ValueError, match=what):
        task(**changes)


def test_a_task_with_values_of_another_type_is_refused():
    plain = task().to_plain()

    for name in set(plain) - {"schema_version"}:
        with pytest.raises(ValueError, match=name):
            CountTask.from_plain(plain | {name: None})
    with pytest.raises(ValueError, match="texts"):
        CountTask.from_plain(plain | {"device_ids": [1]})


def test_facts_beside_an_answer_survive_the_way_and_hold_no_more():
    facts = Counted(channel="metrics", index=3, num_devices=2)

    assert Counted.from_plain(facts.to_plain()) == facts
    assert set(facts.to_plain()) == {"schema_version", "channel", "index", "num_devices"}
    assert json.dumps(facts.to_plain())
    with pytest.raises(ValueError, match="num_devices"):
        Counted.from_plain(facts.to_plain() | {"num_devices": True})


def test_every_field_of_an_answer_is_in_the_table_of_what_leaves():
    facts = Counted(channel="metrics", index=3, num_devices=2)

    assert set(COUNT_FIELDS) == {FLAT_ARRAY, *facts.to_plain()}
    assert "## count answer" in what_leaves()


@pytest.mark.parametrize("absurd", [2**63, -(2**63), int("9" * 401)])
def test_a_number_beyond_64_bits_is_no_fact_of_an_answer(absurd):
    facts = Counted(channel="metrics", index=3, num_devices=2).to_plain()
    with pytest.raises(ValueError, match="num_devices must lie within 64 bits"):
        Counted.from_plain(facts | {"num_devices": absurd})
