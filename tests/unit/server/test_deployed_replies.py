"""Replies wanted, dropout and least replies in a deployed run's configuration."""

import json
import tomllib

import pytest

from privacy.statement import REACHABILITY
from server.engine.rounds import RoundsError
from server.engine.run_configuration import planned_rounds
from server.plans.plan_file import PlanContradictedError
from server.runs.report_layout import statement_of
from tests.support.stream_policies import stream_policy
from tests.support.system_parts import REPOSITORY

DECLARED = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"][
    "config"
] | {"stream-key-file": "key"}


def config_of(**said):
    return planned_rounds(DECLARED | {key.replace("_", "-"): value for key, value in said.items()})


def test_cohort_is_worked_out_from_replies_and_dropout():
    config, _ = config_of(replies=1400, dropout=0.3)
    assert config.cohort_size == 2000
    config, _ = config_of(replies=70, dropout=0.3)
    assert config.cohort_size == 100
    assert config_of(cohort=12)[0].cohort_size == 12


@pytest.mark.parametrize("said", [{"replies": 70, "dropout": 0.3, "cohort": 99}])
def test_cohort_that_says_otherwise_is_refused(said):
    with pytest.raises(RoundsError, match="take a cohort of 100, and cohort is 99"):
        config_of(**said)


@pytest.mark.parametrize("said", [{"replies": -1}, {"replies": 5, "dropout": 1.0}])
def test_replies_that_cannot_be_had_are_refused(said):
    with pytest.raises(ValueError, match="must"):
        config_of(**said)


def test_replies_must_take_the_plans_cohort(tmp_path):
    policy = stream_policy()
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(policy.to_json()))
    n = policy.cohort_size
    assert config_of(plan=str(path), replies=n)[0].cohort_size == n
    with pytest.raises(PlanContradictedError, match="cohort"):
        config_of(plan=str(path), replies=n + 1)


def test_least_replies_stand_in_the_policy_and_in_the_statement():
    config, _ = config_of(replies=8, dropout=0.2, min_replies=6)
    terms = config.terms(config.schedule(100))
    assert terms.policy.min_replies == 6
    assert REACHABILITY in statement_of(terms).assumptions
    usual, _ = config_of(cohort=10)
    terms = usual.terms(usual.schedule(100))
    assert REACHABILITY not in statement_of(terms).assumptions
    assert "min_replies" not in terms.policy.to_json()


def test_least_replies_beyond_the_cohort_are_refused():
    with pytest.raises(ValueError, match=r"min_replies must lie in 1\.\.10"):
        config_of(cohort=10, min_replies=11)
