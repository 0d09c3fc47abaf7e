import re
from dataclasses import replace

import numpy as np
import pytest

from edge_client.explanations.sentences import (
    change_sentences,
    confidence_sentences,
    helpful_data,
    recommended_words,
    tree_sentences,
)
from edge_client.wording import LANGUAGES, chosen_language, load_wording
from models.bundle import load_bundle
from models.counterfactual import Change, Counterfactual, Estimate, Lever, Search
from models.feature_spec import FEATURE_NAMES, FEATURES, NUM_FEATURES
from models.prediction import Action, Report, Status, Urgency
from models.telemetry import CAUSES
from models.tree_path import Condition, TreePath
from tests.support.edge_devices import NOW

ENGLISH, GERMAN = load_wording("en"), load_wording("de")
COMPLETE = load_bundle().explanation_reference
REPORT = Report(
    device_id="device-1",
    as_of=NOW,
    status=Status.OK,
    model_version="m",
    feature_spec_version="1",
    confidence=0.42,
    recommended_action=Action.SCHEDULE_REPLACEMENT,
)


def without(*groups):
    """Return the features of a device that does not measure these groups."""
    missing = [feature.group in groups for feature in FEATURES]
    return np.where(missing, np.float32(np.nan), COMPLETE).astype(np.float32)


def test_high_confidence_is_said_in_one_sentence():
    sure = replace(REPORT, confidence=0.85)
    assert confidence_sentences(sure, COMPLETE, ENGLISH) == (
        "We are fairly sure (85 %) that the battery will last 7 to 30 days.",
    )
    assert confidence_sentences(sure, COMPLETE, GERMAN) == (
        "Wir sind ziemlich sicher (85 %), dass der Akku noch 7 bis 30 Tage hält.",
    )


def test_medium_confidence_says_that_it_is_not_very_sure():
    (said,) = confidence_sentences(replace(REPORT, confidence=0.6), COMPLETE, ENGLISH)
    assert said == ("The battery will probably last 7 to 30 days, but we are not very sure (60 %).")


def test_low_confidence_says_not_sure_and_which_data_would_help():
    assert confidence_sentences(REPORT, without("resistance"), ENGLISH) == (
        "We are not sure that the battery will last 7 to 30 days (42 %).",
        "The battery's internal resistance is not measured; it would make the estimate surer.",
    )
    assert confidence_sentences(REPORT, COMPLETE, GERMAN) == (
        "Wir sind nicht sicher, dass der Akku noch 7 bis 30 Tage hält (42 %).",
        "Die nächsten Wochen werden mehr zeigen.",
    )


@pytest.mark.parametrize(
    ("confidence", "percent"), [(0.796, "79"), (0.4999, "49"), (0.8, "80"), (0.555, "56")]
)
def test_percent_and_word_agree(confidence, percent):
    said = confidence_sentences(replace(REPORT, confidence=confidence), COMPLETE, ENGLISH)
    assert f"({percent} %)" in said[0]


def test_data_that_would_help_is_what_is_missing():
    assert helpful_data(COMPLETE) == ("time",)
    assert helpful_data(without("charging", "usage")) == ("charging", "usage")
    short = COMPLETE.copy()
    short[FEATURE_NAMES.index("capacity_slope_90d")] = np.nan
    assert helpful_data(short) == ("history",)
    nothing = np.full(NUM_FEATURES, np.nan, np.float32)
    assert helpful_data(nothing) == (
        "history",
        "capacity",
        "charging",
        "resistance",
        "temperature",
        "shutdowns",
        "usage",
    )


def found(lever, amount, after=61.4):
    return Counterfactual(
        search=Search.FOUND,
        now=Estimate(40.2, 0.3),
        change=Change(lever, amount, 1.0),
        after=Estimate(after, 0.1),
        num_tried=7,
    )


def test_a_change_is_told_with_both_estimates_and_the_caveat():
    assert change_sentences(found(Lever.TEMPERATURE, 35.0), ENGLISH) == (
        "Below 35 °C the estimate would be 61 days instead of 40.",
        "This is the model's estimate, as if the last 30 days had been so, and not a promise.",
    )
    assert change_sentences(found(Lever.CHARGING_CEILING, 80.0), ENGLISH)[0] == (
        "Charged to 80 % instead of full, the estimate would be 61 days instead of 40."
    )
    assert change_sentences(found(Lever.USE, 25.0), GERMAN) == (
        (
            "Mit 25 % weniger Gebrauchsstunden und Ladezyklen am Tag läge die Schätzung bei 61"
            " Tagen statt bei 40."
        ),
        (
            "Das ist die Schätzung des Modells, als wären die letzten 30 Tage so gewesen, und kein"
            " Versprechen."
        ),
    )


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("search", [Search.NOT_FOUND, Search.NOT_NEEDED, Search.TOO_LATE])
def test_without_a_change_one_sentence_says_why(language, search):
    result = Counterfactual(search=search, now=Estimate(40.0, 0.1))
    (said,) = change_sentences(result, load_wording(language))
    assert said.endswith(".")


PATH = TreePath(
    conditions=(
        Condition("days_to_eol_linear_30d", is_above=False, threshold=39.78, value=26.6),
        Condition("capacity_slope_10d", is_above=True, threshold=-0.0153, value=-0.004),
    ),
    flagged_share=0.87,
    fidelity=0.9907,
    fidelity_r2=0.8,
)


def test_the_simpler_rule_says_because_and_and_its_fidelity():
    assert tree_sentences(PATH, is_flagged=True, wording=ENGLISH) == (
        (
            "A simpler rule would warn of this battery, because the time to the end of life at the"
            " pace of the last 30 days is 27 days (limit 40) and the monthly change of that"
            " capacity over 10 days is -0.4 % (limit -1.5)."
        ),
        "It decides as the model does for 99 % of devices' days.",
    )
    assert tree_sentences(PATH, is_flagged=True, wording=GERMAN)[0] == (
        "Eine einfachere Regel würde vor diesem Akku warnen, denn die Zeit bis zum Lebensende im"
        " Tempo der letzten 30 Tage liegt bei 27 Tagen (Grenze 40) und die monatliche Änderung"
        " dieser Kapazität über 10 Tage liegt bei -0,4 % (Grenze -1,5)."
    )


def test_a_rule_that_differs_says_that_the_model_counts():
    said = tree_sentences(PATH, is_flagged=False, wording=ENGLISH)
    assert said[-1] == "For this device the model decides otherwise, and the model counts."


def test_what_was_not_measured_is_no_because():
    unknown = replace(
        PATH,
        conditions=(Condition("resistance_ratio", is_above=True, threshold=1.5, value=None),),
        flagged_share=0.1,
        fidelity=None,
    )
    assert tree_sentences(unknown, is_flagged=False, wording=ENGLISH) == (
        "A simpler rule would not warn of this battery.",
    )


def test_of_one_kind_of_figure_over_two_windows_the_first_is_told():
    twice = replace(
        PATH,
        conditions=(
            Condition("days_to_eol_linear_30d", is_above=False, threshold=38.7, value=None),
            Condition("days_to_eol_linear_90d", is_above=False, threshold=56.8, value=14.4),
            Condition("days_to_eol_linear_30d", is_above=False, threshold=38.7, value=14.4),
            Condition("health_margin_fitted_90d", is_above=False, threshold=0.5, value=0.1),
            Condition("health_margin", is_above=False, threshold=0.4, value=0.1),
        ),
    )
    said = tree_sentences(twice, is_flagged=True, wording=ENGLISH)[0]
    assert "the last 90 days is 14 days (limit 57)" in said
    assert "by the line of 90 days, is 10 % (limit 50)" in said
    assert said.count("limit") == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_cause_action_and_urgency_has_words(language):
    texts = load_wording(language).explanation
    assert tuple(texts["causes"]) == CAUSES
    assert tuple(texts["actions"]) == tuple(Action)
    assert tuple(texts["urgencies"]) == tuple(Urgency)
    assert len(set(texts["actions"].values())) == len(Action)


def test_action_and_urgency_are_said_in_the_owners_language():
    words = (Action.SCHEDULE_REPLACEMENT, Urgency.HIGH)
    assert recommended_words(*words, ENGLISH) == "schedule replacement (urgency high)"
    assert recommended_words(*words, GERMAN) == "Ersatz einplanen (Dringlichkeit hoch)"
    assert recommended_words(words[0], None, GERMAN) == "Ersatz einplanen"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_says_in_which_direction_it_speaks(language):
    reasons = load_wording(language).reasons
    directions = {
        "en": {"raises": "speak(s)? for a failure", "lowers": "speak(s)? against a failure"},
        "de": {"raises": "(sprechen|spricht) für", "lowers": "(sprechen|spricht) gegen"},
    }[language]
    for code, alternatives in reasons.items():
        group, _, direction = code.partition(".")
        other = reasons[f"{group}.{'lowers' if direction == 'raises' else 'raises'}"]
        assert not set(alternatives) & set(other), code
        for text in alternatives:
            assert re.search(directions[direction], text), text


def test_language_without_texts_is_refused_where_somebody_asks_for_it():
    assert chosen_language("de-AT") == "de-AT"
    with pytest.raises(ValueError, match="must be one of en, de, got 'fr'"):
        chosen_language("fr")


def test_a_value_that_reads_like_the_limit_is_not_repeated():
    near = replace(
        PATH, conditions=(Condition("battery_temp_max", True, threshold=40.01, value=40.02),)
    )
    assert "above 40 °C." in tree_sentences(near, is_flagged=True, wording=ENGLISH)[0]
