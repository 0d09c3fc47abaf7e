"""`predict --explain` for three readers, on a real store with the default bundle."""

import json
from datetime import timedelta

import numpy as np
import pytest

from edge_client.cli import main
from edge_client.explanations.audit_record import differences, parse_record, record_digest
from models.bundle import canonical_json, load_bundle
from models.explanation import shapley_values
from models.feature_spec import FEATURE_NAMES, GROUPS
from models.inference import Predictor
from tests.support.edge_devices import NOW, fading_life, new_store, reading

AT_NOW = ("--now", NOW.isoformat())


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """A store whose battery is some weeks from its end."""
    readings = fading_life(last_capacity_mah=2560.0)
    with new_store(tmp_path_factory.mktemp("device")) as store:
        store.record_many(readings, now=NOW)
        return store.path


@pytest.fixture
def run(device, capsys):
    def call(*arguments):
        code = main([*arguments, "--store", str(device)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_owner_reads_plain_sentences(run):
    code, out, err = run("predict", "--explain", *AT_NOW)
    assert (code, err) == (0, "")
    assert out == run("predict", "--audience", "owner", *AT_NOW)[1]
    labels = [line[:20].strip() for line in out.splitlines()]
    assert [label for label in labels if label in {"why", "how sure", "what if", "in short"}] == [
        "why",
        "how sure",
        "what if",
        "in short",
    ]
    assert "because the time to the end of life" in out
    assert "It decides as the model does for 99 % of devices' days." in out
    assert "log-odds" not in out
    assert "capacity_slope" not in out


def test_the_owner_reads_what_could_be_changed_with_the_model_s_own_estimates(tmp_path, capsys):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(last_capacity_mah=2650.0), now=NOW)
    place = (*AT_NOW, "--store", str(store.path))
    assert main(["predict", "--audience", "support", "--json", *place]) == 0
    figures = json.loads(capsys.readouterr().out)
    change = figures["change"]
    assert change["search"] == "found"
    assert change["change"]["lever"] == "charging_ceiling"
    now, after = change["now"]["days"], change["after"]["days"]
    assert now == figures["days_to_failure_p50"]
    assert after >= now + 7
    assert main(["predict", "--explain", *place]) == 0
    assert (
        f"Charged to 80 % instead of full, the estimate would be {after:.0f} days instead of"
        f" {now:.0f}." in capsys.readouterr().out
    )
    assert main(["predict", "--explain", "--language", "de", *place]) == 0
    assert "kein Versprechen" in capsys.readouterr().out


def test_an_owner_without_a_prediction_reads_why_there_is_none(run):
    code, out, _ = run("predict", "--explain", "--now", "2026-02-10")
    assert code == 0
    assert "insufficient history" in out
    assert "in short" not in out


def test_support_reads_every_figure(run):
    code, out, _ = run("predict", "--audience", "support", *AT_NOW)
    assert code == 0
    for name in (*GROUPS, *FEATURE_NAMES):
        assert name in out
    assert "flagged from" in out
    assert "refused by the audit" in out


def test_support_figures_as_json_are_those_of_the_model(run):
    answer = json.loads(run("predict", "--audience", "support", "--json", *AT_NOW)[1])
    predictor = Predictor(load_bundle())

    features = np.array(
        [np.nan if entry["value"] is None else entry["value"] for entry in answer["features"]],
        np.float32,
    )
    values = shapley_values(predictor, features[None])[0]
    assert answer["contributions_log_odds"] == pytest.approx(
        dict(zip(GROUPS, values.tolist(), strict=True)), abs=1e-6
    )
    again = predictor.predict(features[None])
    assert again.days_to_failure_p50[0] == pytest.approx(answer["days_to_failure_p50"], rel=1e-5)
    assert answer["thresholds"]["flag_threshold"] == load_bundle().threshold
    assert answer["data_quality"]["audit"]["num_readings"] == 480
    assert answer["data_quality"]["refused_by_the_store"] == {}
    assert answer["status"] == "ok"
    assert answer["simpler_rule"]["fidelity"] > 0.98
    assert answer["change"]["now"]["days"] == answer["days_to_failure_p50"]


def test_the_owner_s_json_holds_sentences_and_no_table_of_features(run):
    answer = json.loads(run("predict", "--explain", "--json", "--language", "de", *AT_NOW)[1])
    assert set(answer["explanation"]) == {"confidence", "change", "simpler_rule"}
    assert answer["explanation"]["simpler_rule"][0].startswith("Eine einfachere Regel würde")
    assert "features" not in answer


def test_the_audit_record_is_canonical_and_the_same_each_time(run):
    code, out, _ = run("predict", "--audience", "compliance", *AT_NOW)
    assert code == 0
    assert out == run("predict", "--audience", "compliance", *AT_NOW)[1]
    assert out == run("predict", "--audience", "compliance", "--json", *AT_NOW)[1]
    record = json.loads(out)
    assert canonical_json(record).decode() + "\n" == out
    assert record["model"]["digest"] == load_bundle().digest
    assert record["as_of"] == NOW.isoformat()
    assert record["backend"]["name"] == "onnxruntime"
    assert record["record_sha256"] == record_digest(record)
    report = json.loads(run("predict", "--json", *AT_NOW)[1])
    assert all(report[name] == value for name, value in record["outputs"].items())
    decided = {entry["decision"]: entry for entry in record["decisions"]}
    assert decided["flagged"]["value"] == report["flagged"]
    assert decided["recommended_action"]["value"] == report["recommended_action"]
    assert decided["urgency"]["value"] == report["urgency"]
    assert [reason["code"] for reason in record["reasons"]] == [
        reason["code"] for reason in report["reasons"]
    ]


def test_a_record_is_confirmed_by_running_it_again(run, tmp_path):
    file = tmp_path / "record.json"
    file.write_text(run("predict", "--audience", "compliance", *AT_NOW)[1])
    code, out, _ = run("predict", "--check", str(file))
    assert code == 0
    assert out == f"confirmed: a re-run as of {NOW.isoformat()} gives the same record\n"
    assert json.loads(run("predict", "--check", str(file), "--json")[1])["confirmed"] is True


def test_a_record_of_other_readings_is_not_confirmed(run, device, tmp_path, capsys):
    file = tmp_path / "record.json"
    file.write_text(run("predict", "--audience", "compliance", *AT_NOW)[1])
    with new_store(tmp_path) as store:
        store.record_many(fading_life(last_capacity_mah=2500.0), now=NOW)
        other = store.path
    assert main(["predict", "--check", str(file), "--store", str(other)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("not confirmed")
    assert "input.features_sha256" in out
    assert "outputs.days_to_failure_p50" in out


def test_later_readings_do_not_change_what_is_confirmed(run, tmp_path, capsys):
    with new_store(tmp_path) as store:
        store.record_many(fading_life(), now=NOW)
    place = ("--store", str(store.path))
    assert main(["predict", "--audience", "compliance", *AT_NOW, *place]) == 0
    file = tmp_path / "record.json"
    file.write_text(capsys.readouterr().out)
    with type(store)(store.path) as again:
        later = NOW + timedelta(days=3)
        again.record(reading(later), now=later)
    assert main(["predict", "--check", str(file), *place]) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record | {"device": "device-2"}, "it was altered"),
        (lambda record: record | {"kind": "other"}, "it is no prediction_audit_record"),
        (lambda record: record | {"schema_version": 2}, "schema_version is not 1"),
        (lambda record: [record], "it is no prediction_audit_record"),
    ],
)
def test_a_record_that_is_none_is_refused(run, tmp_path, change, says):
    record = json.loads(run("predict", "--audience", "compliance", *AT_NOW)[1])
    file = tmp_path / "record.json"
    file.write_text(json.dumps(change(record)))
    code, _, err = run("predict", "--check", str(file))
    assert code == 3
    assert says in err
    with pytest.raises(ValueError, match="it "):
        parse_record(json.dumps(record | {"device": "device-2"}))


def test_a_record_that_is_not_there_is_a_missing_part(run, tmp_path):
    code, _, err = run("predict", "--check", str(tmp_path / "none.json"))
    assert code == 4
    assert err.count("\n") == 1


def test_only_audit_records_can_be_checked(run, tmp_path):
    code, _, err = run("predict", "--audience", "owner", "--check", str(tmp_path / "r.json"))
    assert code == 2
    assert "leave --audience out" in err


def test_another_backend_may_differ_in_the_last_digits_and_nothing_else(run):
    record = json.loads(run("predict", "--audience", "compliance", *AT_NOW)[1])
    outputs = {
        name: value * (1 + 1e-5) for name, value in record["outputs"].items() if value is not None
    }
    other = record | {"outputs": outputs, "backend": {"name": "numpy", "version": "2"}}
    assert differences(record, other) == ()
    farther = record | {"outputs": outputs | {"confidence": outputs["confidence"] + 0.01}}
    assert differences(record, farther) == ("outputs.confidence",)
    flag = [entry | {"value": None} for entry in record["decisions"]]
    assert "decisions[1].value" in differences(record, record | {"decisions": flag})
    fewer = record | {"reasons": record["reasons"][:1]}
    assert differences(record, fewer) == ("reasons",)
