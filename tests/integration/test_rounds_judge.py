"""A run's candidate is proposed only where it is not worse than the model in use."""

import json

import numpy as np
import pytest

from models.bundle import DEFAULT, load_bundle, write_bundle
from models.private_histograms import evaluation_question
from privacy.counts import NoisedCounts
from server.counts.private_metrics import ReleasedCounts
from server.counts.run_counts import COUNTS_REPORT
from server.engine.proposal import private_vetoes, read_proposal
from server.runs.replay_record import folder_digest
from tests.support.command_line import fedcell
from tests.support.cycling_files import write_cells
from tests.support.fleets import random_bundle


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A small simulated fleet with failures."""
    folder = tmp_path_factory.mktemp("reference") / "fleet"
    fedcell(*("simulate", "fleet", "--devices", 80, "--days", 300, "--seed", 21, "--out", folder))
    return folder


def run_with(bundle, folder):
    folder.mkdir(exist_ok=True)
    write_bundle(bundle, folder / "bundle.zip")
    return folder


def test_candidate_that_equals_the_model_in_use_is_proposed(reference, tmp_path):
    candidate = load_bundle(DEFAULT)
    run = run_with(candidate, tmp_path / "run")

    told = fedcell("rounds", "judge", run, "--reference", reference, "--json").json()

    assert told["passed"] is True
    assert {check["candidate"] == check["current"] for check in told["checks"]} == {True}
    kept = read_proposal(run, candidate)
    assert kept is not None
    assert kept["candidate"]["digest"] == candidate.digest


def test_decision_names_what_it_was_taken_on_and_beside_which_model(reference, tmp_path):
    candidate = load_bundle(DEFAULT)
    run = run_with(candidate, tmp_path / "run")

    answer = fedcell("rounds", "judge", run, "--reference", reference)

    assert "in use, by default (no releases in fedcell-releases)" in answer.err
    kept = read_proposal(run, candidate)
    assert kept["sha256"] == {"the reference fleet": folder_digest(reference)}
    assert kept["current"] == {"version": candidate.version, "digest": candidate.digest}
    (measured,) = kept["measured"]
    assert measured["dataset"] == "the reference fleet"
    assert measured["windows"] > measured["failures"] > 0


@pytest.mark.parametrize("where", ["--reference", "--cells"])
def test_the_fleet_that_a_run_trained_over_is_nobody_s_to_judge_it(reference, tmp_path, where):
    run = run_with(load_bundle(DEFAULT), tmp_path / "run")
    report = {"record": {"fleet_sha256": folder_digest(reference)}}
    (run / "run.json").write_text(json.dumps(report))
    other = tmp_path / "other"
    other.mkdir()
    words = {"--reference": other} | {where: reference}

    answer = fedcell("rounds", "judge", run, *(word for pair in words.items() for word in pair))

    assert answer.code == 3
    assert "is the fleet that" in answer.err
    assert "name one that is nobody's" in answer.err
    assert not (run / "proposal.json").exists()


def test_worse_candidate_is_not_proposed_and_the_figures_say_why(reference, tmp_path):
    run = run_with(random_bundle(), tmp_path / "run")

    refused = fedcell("rounds", "judge", run, "--reference", reference)

    assert refused.code == 1
    assert "not proposed" in refused.out
    assert "average_precision on the reference fleet" in refused.out
    kept = json.loads((run / "proposal.json").read_text())
    assert kept["passed"] is False
    assert kept["why"].startswith("The candidate of the rounds did not pass")


def test_public_cells_stop_a_candidate_too(reference, tmp_path):
    write_cells(tmp_path / "c.parquet", cells=("x-1", "x-2"), cycles=150, fade=(0.0035, 0.001))
    fedcell("import-cells", tmp_path / "c.parquet", "--out", tmp_path / "cells")
    run = run_with(random_bundle(), tmp_path / "run")

    told = fedcell(
        *("rounds", "judge", run, "--reference", reference, "--cells", tmp_path / "cells"),
        "--json",
    ).json()

    assert {check["dataset"] for check in told["checks"]} == {"the reference fleet", "public cells"}


def test_decision_on_another_bundle_is_none_on_this(reference, tmp_path):
    run = run_with(load_bundle(DEFAULT), tmp_path / "run")
    fedcell("rounds", "judge", run, "--reference", reference)

    assert read_proposal(run, random_bundle()) is None


def evaluation(version, *, separates, devices, variance):
    """Counts of a model whose scores separate failed devices from others, or do not."""
    question = evaluation_question(as_of_s=0, model_version=version)
    half = question.size // 2
    lived, failed = np.zeros(half), np.zeros(half)
    lived[:2] = devices / 2
    failed[-2 if separates else 0 :][:2] = devices / 10
    found = NoisedCounts(
        counts=np.concatenate([lived, failed]), noise_variance=variance, cohort_size=2 * devices
    )
    return ReleasedCounts(question, found, "0" * 64)


@pytest.mark.parametrize(("variance", "expected"), [(100.0, True), (1e10, False)])
def test_devices_counts_veto_only_beyond_doubt(variance, expected):
    current, candidate = load_bundle(DEFAULT), random_bundle()
    good = evaluation(current.version, separates=True, devices=20_000, variance=variance)
    bad = evaluation(candidate.version, separates=False, devices=20_000, variance=variance)

    assert bool(private_vetoes([good, bad], candidate=candidate, current=current)) is expected
    assert private_vetoes([bad], candidate=candidate, current=current) == []


def test_counts_of_a_run_veto_what_the_reference_fleet_lets_pass(reference, tmp_path):
    current = load_bundle(DEFAULT)
    run = run_with(random_bundle(2), tmp_path / "run")
    releases = [
        evaluation(current.version, separates=True, devices=20_000, variance=100.0),
        evaluation(random_bundle(2).version, separates=False, devices=20_000, variance=100.0),
    ]
    report = {"releases": [one.to_json() for one in releases]}
    (run / COUNTS_REPORT).write_text(json.dumps(report))

    told = fedcell("rounds", "judge", run, "--reference", reference, "--json").json()

    assert told["passed"] is False
    assert told["vetoes"] == ["auc", "average_precision"]


def test_run_without_a_candidate_is_bad_input(reference, tmp_path):
    refused = fedcell("rounds", "judge", tmp_path, "--reference", reference)

    assert refused.is_refused(4, "bundle.zip")
