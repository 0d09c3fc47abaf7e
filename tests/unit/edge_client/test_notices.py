from datetime import timedelta

import pytest

from edge_client.explanations.sentences import DATA_THAT_HELPS, SEARCHES_WITHOUT_CHANGE
from edge_client.notices import reason_sentences, render_notice
from edge_client.wording import FIELDS, LANGUAGES, fields_of, fill, load_wording
from models.counterfactual import Lever
from models.feature_spec import FEATURE_NAMES, GROUPS
from models.prediction import Action, Confidence, Reason, Urgency
from models.telemetry import DeviceId
from models.wire.bands import DaysBand, HealthBand, ProbabilityBand
from models.wire.messages import Notice, Template
from tests.support.edge_devices import NOW

OWN = {
    "device_model": "Meter 3",
    "capacity_mah": "2130",
    "state_of_health_pct": "71",
    "charge_time_longer_pct": "38",
    "days_low": "3",
    "days_high": "9",
}
EVERY_FIELD = dict.fromkeys(FIELDS, "5")


def a_notice(template=Template.UNDER_7, confidence=Confidence.MEDIUM):
    return Notice(
        id="a" * 32,
        device=DeviceId("device-1"),
        sequence=1,
        issued=NOW,
        expires=NOW + timedelta(days=7),
        correlation="b" * 32,
        template=template,
        language="en",
        urgency=Urgency.CRITICAL,
        days_band=DaysBand.UNDER_7,
        probability_band=ProbabilityBand.FROM_80,
        health_band=HealthBand.FROM_70_TO_80,
        confidence=confidence,
        human_contact="0800 123 456",
        version=1,
    )


def all_texts(node):
    if isinstance(node, str):
        yield node
    else:
        for child in node.values() if isinstance(node, dict) else node:
            yield from all_texts(child)


def shape(node):
    """Keys and lengths of nested data, without its texts."""
    if isinstance(node, str):
        return fields_of(node)
    if isinstance(node, dict):
        return {key: shape(child) for key, child in node.items()}
    return [shape(child) for child in node]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_names_known_fields_and_fills_without_a_leftover(language):
    wording = load_wording(language)
    texts = [
        *all_texts(wording.notices),
        *all_texts(wording.confidence),
        *all_texts(wording.reasons),
        *all_texts(wording.explanation),
    ]
    for text in texts:
        assert fields_of(text) <= FIELDS.keys(), text
        assert not set("{}") & set(text.format_map(EVERY_FIELD)), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_wording_is_complete(language):
    wording = load_wording(language)
    assert wording.language == language
    assert set(wording.notices) == set(Template)
    assert set(wording.confidence) == set(Confidence)
    assert set(wording.reasons) == {
        f"{group}.{direction}" for group in GROUPS for direction in ("raises", "lowers")
    }
    for alternatives in wording.reasons.values():
        assert fields_of(alternatives[-1]) == frozenset(), "the last alternative needs no figure"


def test_languages_say_the_same_with_the_same_fields():
    english, *others = [load_wording(language) for language in LANGUAGES]
    for other in others:
        assert shape(other.notices) == shape(english.notices)
        assert shape(other.reasons) == shape(english.reasons)
        assert shape(other.explanation) == shape(english.explanation)


def test_every_field_is_used_somewhere():
    wording = load_wording("en")
    parts = (wording.notices, wording.reasons, wording.explanation)
    used = frozenset().union(*(fields_of(text) for part in parts for text in all_texts(part)))
    assert used == FIELDS.keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_else_is_said_of_a_prediction_is_complete(language):
    texts = load_wording(language).explanation
    assert set(texts["spans"]) == set(Action)
    assert set(texts["confidence"]) == set(Confidence)
    assert set(texts["more_data"]) == set(DATA_THAT_HELPS)
    assert set(texts["change"]) == {*Lever, *SEARCHES_WITHOUT_CHANGE, "caveat"}
    assert set(texts["features"]) == set(FEATURE_NAMES)
    for feature in texts["features"].values():
        assert set(feature) == {"name", "unit"}
        assert feature["name"]
    for part in ("confidence", "more_data", "change", "tree"):
        for alternatives in texts[part].values():
            assert isinstance(alternatives, list)
            assert all(alternatives)


def test_urgent_notice_as_its_owner_sees_it():
    assert render_notice(a_notice(), OWN, load_wording("en")).text() == (
        "The battery of your Meter 3 needs to be replaced soon\n"
        "\n"
        "What we found\n"
        "  The battery now holds 2130 mAh, 71 % of its capacity when new.\n"
        "  Charging takes 38 % longer than a month ago.\n"
        "  It will probably last 3 to 9 more days.\n"
        "\n"
        "What happens next\n"
        "  You can request a free replacement, book a service appointment, or look at the battery's"
        " details first.\n"
        "\n"
        "If you would rather talk to a person\n"
        "  You reach us here: 0800 123 456\n"
        "\n"
        "[ Request a free replacement ]\n"
        "[ Book a service appointment ]\n"
        "[ View battery details ]\n"
        "[ Talk to a person ]"
    )


def test_later_notice_as_its_german_owner_sees_it():
    own = OWN | {"days_low": "12", "days_high": "31"}
    notice = a_notice(Template.FROM_7_TO_30, Confidence.HIGH)
    assert render_notice(notice, own, load_wording("de")).text() == (
        "Ihr Meter 3 braucht in den nächsten Wochen vielleicht einen neuen Akku\n"
        "\n"
        "Das Gerät arbeitet, im Moment ist nichts zu tun\n"
        "  Ihr Meter 3 arbeitet weiterhin. Der Akku muss in den nächsten Wochen möglicherweise"
        " ersetzt werden.\n"
        "\n"
        "Was wir wissen\n"
        "  Zustand des Akkus: 71 % seiner Kapazität im Neuzustand.\n"
        "  Geschätzte Zeit: 12 bis 31 Tage.\n"
        "  Wie sicher wir sind: ziemlich sicher.\n"
        "\n"
        "Was Sie tun können\n"
        "  Sie können einen Ersatz einplanen, den ausführlichen Bericht lesen oder sich nächste"
        " Woche erinnern lassen.\n"
        "  Einen Menschen erreichen Sie hier: 0800 123 456\n"
        "\n"
        "[ Ersatz einplanen ]\n"
        "[ Ausführlichen Bericht lesen ]\n"
        "[ Nächste Woche erinnern ]\n"
        "[ Mit einem Menschen sprechen ]"
    )


@pytest.mark.parametrize("template", Template)
@pytest.mark.parametrize("language", LANGUAGES)
def test_missing_figures_drop_their_sentences(template, language):
    shown = render_notice(a_notice(template), {}, load_wording(language))
    text = shown.text()
    assert shown.subject
    assert "0800 123 456" in text
    assert "%" not in text
    assert "mAh" not in text


def test_counts_of_similar_devices_are_shown_only_where_they_exist():
    wording = load_wording("en")
    assert "similar" not in render_notice(a_notice(), OWN, wording).text()
    counted = OWN | {
        "similar_devices": "212",
        "similar_failed_pct": "73",
        "similar_within_days": "60",
    }
    assert (
        "Of 212 similar devices, 73 % failed within 60 days."
        in render_notice(a_notice(), counted, wording).text()
    )


def test_contact_comes_from_the_server_alone():
    shown = render_notice(a_notice(), {"human_contact": "elsewhere"}, load_wording("en"))
    assert "elsewhere" not in shown.text()


def test_braces_in_a_contact_stay_what_they_are():
    notice = a_notice()
    text = render_notice(notice, OWN | {"device_model": "{capacity_mah}"}, load_wording("en"))
    assert "your {capacity_mah} needs" in text.subject


def test_json_form_holds_the_text_and_its_parts():
    shown = render_notice(a_notice(), OWN, load_wording("en"))
    assert shown.as_json()["text"] == shown.text()
    assert shown.as_json()["actions"]["request_replacement"] == "Request a free replacement"


def test_reasons_become_sentences_with_own_figures_where_known():
    reasons = (
        Reason("charging.raises", 0.5),
        Reason("capacity_level.raises", 0.3),
        Reason("usage.lowers", 0.1),
    )
    assert reason_sentences(reasons, OWN, load_wording("en")) == (
        "Charging takes 38 % longer than a month ago; that speaks for a failure.",
        "The battery holds 71 % of its capacity when new; that speaks for a failure.",
        "The use of the battery speaks against a failure.",
    )
    assert reason_sentences(reasons[:1], OWN, load_wording("de")) == (
        "Das Laden dauert 38 % länger als vor einem Monat; das spricht für einen Ausfall.",
    )


def test_unknown_language_is_read_in_english():
    assert load_wording("pt-BR").language == "en"
    assert load_wording("de-AT").language == "de"


def test_first_alternative_that_is_known_wins():
    assert fill(["{a} {b}", "{a}", "none"], {"a": "1"}) == "1"
    assert fill(["{a}"], {}) is None
