"""What a deployed Flower run's configuration says of its rounds and of the counts it asks."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..counts.run_counts import CountsPlan, DriftReference
from ..plans.plan_file import config_under, constants_of, read_plan, require_agreement
from .over_invitation import invited_for
from .rounds import RoundsConfig, RoundsError
from .training_recipes import FROM_TRAINED_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from privacy import StreamPolicy

UNSAID: Final = {
    "rounds": 24,
    "cohort": 2000,
    "epsilon": 2.0,
    "delta": 1e-8,
    "update-share": 0.85,
    "max-participations": 0,
    "max-devices-per-owner": 5,
    "clipping-norm": 0.3,
    "clipping-quantile": 0.0,
    "min-replies": 1,
}
"""What stands in the configuration for a key that nobody gave: Flower fills it in, from
`[tool.flwr.app.config]` in pyproject.toml. Beside a plan it says nothing."""


def planned_rounds(
    run_config: Mapping[str, object],
) -> tuple[RoundsConfig, StreamPolicy | None]:
    """Read what decides the rounds, and the plan that they carry out, if one is named.

    Raises:
        RoundsError: a key has no value, or contradicts the plan, or the plan cannot be read.
        ValueError: a value is none.
    """
    value_of(run_config, "stream-key-file")
    cohort, is_worked_out = _cohort(run_config)
    config = RoundsConfig(
        stream=f"run-{secrets.token_hex(8)}",
        num_rounds=int(value_of(run_config, "rounds")),
        cohort_size=cohort,
        min_replies=int(value_of(run_config, "min-replies")),
        clipping_norm=float(value_of(run_config, "clipping-norm")),
        target_quantile=float(value_of(run_config, "clipping-quantile")) or None,
        recipe=replace(
            FROM_TRAINED_WEIGHTS.local, proximal=float(value_of(run_config, "proximal"))
        ),
        server=FROM_TRAINED_WEIGHTS.server,
        epsilon=float(value_of(run_config, "epsilon")),
        delta=float(value_of(run_config, "delta")),
        deadline_s=float(value_of(run_config, "deadline-s")),
        update_share=float(value_of(run_config, "update-share")),
        count_years=float(value_of(run_config, "count-years")),
        max_participations=int(value_of(run_config, "max-participations")) or None,
        max_devices_per_owner=int(value_of(run_config, "max-devices-per-owner")),
        holds_out=True,
    )
    path = path_of(run_config, "plan")
    if path is None:
        return config, None
    plan = read_plan(path)
    given = {key: float(value_of(run_config, key)) for key in constants_of(plan)}
    said = {key: value for key, value in given.items() if value != UNSAID[key]}
    if is_worked_out:
        said["cohort"] = float(cohort)
    require_agreement(plan, said)
    return config_under(plan, config), plan


def _cohort(run_config: Mapping[str, object]) -> tuple[int, bool]:
    """Return how many devices are invited, and whether that was worked out from replies wanted.

    Raises:
        RoundsError: a number is said as well, and is another.
        ValueError: a value is out of bounds.
    """
    named, replies = int(value_of(run_config, "cohort")), int(value_of(run_config, "replies"))
    dropout = float(value_of(run_config, "dropout"))
    if replies == 0:
        return named, False
    invited = invited_for(replies, dropout=dropout)
    if named not in {invited, UNSAID["cohort"]}:
        raise RoundsError(
            f"{replies} replies take a cohort of {invited}, and cohort is {named}; leave one out"
        )
    return invited, True


def planned_counts(run_config: Mapping[str, object]) -> CountsPlan:
    """Read which counts are asked, and when.

    Raises:
        RoundsError: a key has no value, or the reference cannot be read.
        ValueError: a value is none, or out of bounds.
    """
    reference = path_of(run_config, "drift-reference")
    return CountsPlan(
        model_version=str(run_config.get("model-version", "")),
        drift=None if reference is None else DriftReference.read(reference),
        asks_similar_devices=bool(int(value_of(run_config, "similar-devices"))),
        every=int(value_of(run_config, "metrics-every")),
    )


def path_of(run_config: Mapping[str, object], key: str) -> Path | None:
    """Return the path that a key names; None where it is empty."""
    value = run_config.get(key, "")
    return Path(str(value)) if value else None


def value_of(run_config: Mapping[str, object], key: str) -> Any:
    """Return a key's value.

    Raises:
        RoundsError: it is missing, or empty.
    """
    value = run_config.get(key, "")
    if value == "":
        what = f"the run's configuration lacks {key!r}"
        raise RoundsError(f"{what}; add --run-config '{key}=…', a text in double quotes")
    return value
