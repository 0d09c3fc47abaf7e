"""Figures in the papers on privacy are those that the code derives, not those of a day."""

import math
import re
from statistics import NormalDist

import pytest

from models.network_shape import NUM_WEIGHTS
from models.wire.rounds import LocalRecipe
from privacy import RecordLevelSteps
from privacy.accountant import gaussian_epsilon, mu_for, noise_multiplier_for
from privacy.audit.bounds import least_detectable_mu
from privacy.banded_factor import prefix_sum_error
from privacy.policy import StreamPolicy
from privacy.record_accountant import RecordAccountant
from server.audits.canary_audit import ALPHA
from server.audits.planted_homes import PLANTED
from server.audits.privacy_audit import FULL, QUICK, production_policy
from tests.support.system_parts import REPOSITORY

DOCS = REPOSITORY / "docs"
PRIVACY = DOCS / "explanation" / "privacy.md"
THREATS = DOCS / "explanation" / "threat-model.md"
NIST = DOCS / "explanation" / "nist-800-226.md"
AUDIT = DOCS / "how-to" / "audit-privacy.md"
DECISION = DOCS / "adr" / "0027-an-audit-of-the-code-that-runs.md"
DELTA = 1e-8
NORMAL = NormalDist()


def text_of(page):
    """A page on one line, so that a figure may stand before or after a line's end."""
    return " ".join(page.read_text().split())


def row(page, first_cell):
    """The other cells of the one table row that begins with a cell."""
    found = re.findall(rf"^\| {re.escape(first_cell)} \|(.*)\|$", page.read_text(), re.MULTILINE)
    assert len(found) == 1, f"{first_cell} in {page.name}"
    return [cell.strip() for cell in found[0].split("|")]


def sigma_of(epsilon, *, participations, delta=DELTA):
    return noise_multiplier_for(epsilon=epsilon, delta=delta, participations=participations)


def guesses(mu):
    return f"{100 * NORMAL.cdf(mu / 2):.1f}"


def test_best_guesses_are_those_of_the_budget():
    budgets = [float(epsilon) for epsilon in row(PRIVACY, "ε at δ = 1e-8")]
    found = [guesses(mu_for(epsilon=epsilon, delta=DELTA)) for epsilon in budgets]

    assert budgets[1] == 2.0
    assert row(PRIVACY, "right guesses in 100, at most") == found
    for page in (PRIVACY, NIST):
        assert f"at most {found[1]} times in 100" in text_of(page)


@pytest.mark.parametrize("delta", ["1e-6", "1e-8", "1e-10"])
def test_table_of_noise_is_what_keeps_the_budget(delta):
    shapes = ((1, 10), (2, 10), (3, 10), (8, 10), (2, 24))

    found = [f"{sigma_of(e, participations=k, delta=float(delta)):.2f}" for e, k in shapes]

    assert row(PRIVACY, delta) == found


def test_gain_of_correlated_noise_is_that_of_the_explicit_factor():
    gains = [
        prefix_sum_error(rounds, 1) / prefix_sum_error(rounds, bands)
        for rounds, bands in ((200, 20), (200, 50), (1000, 100))
    ]

    found = [f"{gain:.2f}" for gain in gains]
    assert row(PRIVACY, "error of independent noise over that of correlated noise") == found
    assert f"{found[0]} times less error" in text_of(NIST)


def test_default_policy_is_the_one_that_is_audited():
    policy = production_policy()
    privacy = policy.privacy
    text = text_of(PRIVACY)

    assert isinstance(policy, StreamPolicy)
    assert f"T = {policy.num_rounds}, n = {policy.cohort_size:,}, k = " in text
    assert f"k = {privacy.max_participations}, b = p = {privacy.min_separation}," in text
    assert privacy.bands == privacy.min_separation
    assert f"ε = {privacy.epsilon:g} at δ = 1e-8, which is μ² = " in text
    assert f"μ² = {mu_for(epsilon=2, delta=DELTA) ** 2:.4f}. Of it {privacy.update_share:.0%}" in (
        text.replace("85 %", "85%")
    )
    assert f"(σ = {privacy.noise_multiplier:.2f})" in text
    assert f"μ² = {mu_for(epsilon=2, delta=DELTA) ** 2:.4f}" in text_of(NIST)


def test_spending_of_updates_and_of_owners_is_derived():
    sigma = production_policy().privacy.noise_multiplier
    budget = mu_for(epsilon=2, delta=DELTA)

    spent = [
        f"{gaussian_epsilon(mu=math.sqrt(int(k)) / sigma, delta=DELTA):.3f}"
        for k in row(PRIVACY, "participations")
    ]
    of_owner = [
        f"{gaussian_epsilon(mu=int(g) * budget, delta=DELTA):.2f}" for g in row(PRIVACY, "g")
    ]

    assert row(PRIVACY, "ε of updates at δ = 1e-8") == spent
    assert row(PRIVACY, "ε for the owner at δ = 1e-8") == of_owner
    assert f"(ε = {float(of_owner[-1]):.1f} in place of 2)" in text_of(PRIVACY)
    assert f"ε = {of_owner[-1]};" in text_of(NIST)


def test_two_streams_and_an_erasure_come_to_what_is_said():
    two = gaussian_epsilon(mu=math.sqrt(2) * mu_for(epsilon=2, delta=DELTA), delta=DELTA)
    text = text_of(PRIVACY)

    assert f"would come to {two:.2f} for a device in both" in text
    assert f"({math.exp(2):.2f} for ε = 2)" in text


def test_record_level_figure_is_that_of_the_default_recipe():
    recipe = LocalRecipe()
    steps = RecordLevelSteps(
        noise_multiplier=recipe.record_noise_multiplier,
        max_grad_norm=recipe.record_max_grad_norm,
        sampling_rate=recipe.sampling_rate,
        steps=24 * recipe.steps,
    )

    epsilon = RecordAccountant([steps]).epsilon(delta=1e-5)

    assert f"| {epsilon:.2f} at δ = 1e-5 after 24 participations" in text_of(PRIVACY)
    assert f"ε_record = {epsilon:.2f} at δ = 1e-5" in text_of(NIST)
    assert f"fewer than {recipe.least_rows} rows" in text_of(PRIVACY)


def test_figures_of_the_audit_are_its_own():
    sigma = production_policy().privacy.noise_multiplier
    claim = math.sqrt(24) / sigma
    least = least_detectable_mu(claim, canaries=FULL.canaries, alpha=ALPHA) / claim
    text = text_of(AUDIT)

    assert f"true μ of {least:.3f} times the claim" in text
    assert f"μ = {claim:.3f}; a bound from {FULL.canaries:,} canaries" in text
    assert f"uses {QUICK.canaries:,} canaries in place of {FULL.canaries:,}" in text
    decided = text_of(DECISION)
    assert f"a σ of {sigma / least:.1f} in place of {sigma:.1f}" in decided
    assert f"a network of {NUM_WEIGHTS:,} weights" in decided


def test_every_planted_defect_is_explained():
    assert [name for name in PLANTED if len(row(AUDIT, name)) != 2] == []
    assert len(PLANTED) == 9
    assert "catch all nine" in text_of(AUDIT)


@pytest.mark.parametrize("page", [PRIVACY, THREATS, NIST], ids=lambda page: page.name)
def test_no_paper_promises_what_nobody_can_keep(page):
    text = text_of(page).lower()

    assert re.findall(r'(?<!never say ")anonym', text) == []
    assert re.findall(r"(?<!is not )(?<!call this )unlearn", text) == []
    assert "guarantees that" not in text


@pytest.mark.parametrize("page", [PRIVACY, NIST], ids=lambda page: page.name)
def test_an_epsilon_stands_with_its_delta_unit_neighbours_and_trust(page):
    text = text_of(page)

    wanted = ("ε_release", "δ = 1e-8", "whole life", "replaced by zero", "ε_server", "unbounded")
    assert [said for said in wanted if said not in text] == []
    assert "aggregator" in text
