"""Whether the keys with which a deployed run is resumed are those that it began with.

A key with its usual value says nothing, for Flower fills that in where nobody gave it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .rounds import RoundsError
from .run_configuration import UNSAID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .rounds import RoundsConfig


class KeyContradictedError(RoundsError):
    """What a run began with was said otherwise as it was to go on; nothing was written."""

    exit_code = 2

    def __init__(self, run: Path, key: str, *, said: object, kept: object) -> None:
        """Name both values."""
        super().__init__(
            f"{run}: {key} is {_shown(said)}, and the run began with {_shown(kept)}; leave {key} "
            "out, or start a new run with another out"
        )


def require_same_keys(
    run: Path, run_config: Mapping[str, object], *, said: RoundsConfig, kept: RoundsConfig
) -> None:
    """Refuse keys beside `resume` that are not what a run began with.

    Args:
        run: its folder.
        run_config: of the Flower run that is to go on with it.
        said: what that configuration says of the rounds.
        kept: what the run began with.

    Raises:
        KeyContradictedError: one differs; both values are named.
    """
    ours, theirs = _by_key(said), _by_key(kept)
    given = {key for key in ours if run_config.get(key, UNSAID[key]) != UNSAID[key]}
    if run_config.get("replies", 0):
        given.add("cohort")
    for key in ours:
        if key in given:
            require_same(run, key, said=ours[key], kept=theirs[key])


def require_same(run: Path, key: str, *, said: object, kept: object) -> None:
    """Refuse one key that is not what a run began with.

    Raises:
        KeyContradictedError: it differs.
    """
    is_same = said == kept
    if isinstance(said, float | int) and isinstance(kept, float | int):
        is_same = math.isclose(said, kept, rel_tol=1e-12)
    if not is_same:
        raise KeyContradictedError(run, key, said=said, kept=kept)


def _by_key(config: RoundsConfig) -> dict[str, Any]:
    """Return what a configuration decides, by the keys of a run's configuration."""
    recipe, server = config.recipe, config.server
    return {
        "rounds": config.num_rounds,
        "cohort": config.cohort_size,
        "min-replies": config.min_replies,
        "epsilon": config.epsilon,
        "delta": config.delta,
        "update-share": config.update_share,
        "count-years": config.count_years,
        "max-participations": config.max_participations or 0,
        "max-devices-per-owner": config.max_devices_per_owner,
        "clipping-norm": config.clipping_norm,
        "clipping-quantile": config.target_quantile or 0.0,
        "local-steps": recipe.steps,
        "sampling-rate": recipe.sampling_rate,
        "batch-size": recipe.expected_batch_size,
        "local-rate": recipe.learning_rate,
        "record-noise": recipe.record_noise_multiplier,
        "proximal": recipe.proximal,
        "optimizer": server.optimizer,
        "server-rate": server.learning_rate,
        "evaluate-every": config.evaluate_every,
        "patience": config.patience,
        "deadline-s": config.deadline_s,
    }


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
