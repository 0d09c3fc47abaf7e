"""What a deployed Flower run's configuration says of its rounds and of the counts it asks."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.bundle import DEFAULT, DEFAULT_FOLDER, MODEL, load_bundle

from ..counts.run_counts import CountsPlan, DriftReference
from ..plans.plan_file import config_under, constants_of, read_plan, require_agreement
from ..runs.log import LEVELS
from ..runs.replay_record import folder_digest
from ..runs.weights_file import read_weights
from .over_invitation import invited_for
from .rounds import RoundsConfig, RoundsError
from .server_optimizer import OPTIMIZER_NAMES, WARM_RATE, OptimizerName, ServerRecipe
from .training_recipes import FROM_TRAINED_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from models.wire.rounds import LocalRecipe
    from privacy import StreamPolicy

UNSAID: Final[Mapping[str, float | str]] = {
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
    "local-steps": 2,
    "sampling-rate": 0.5,
    "record-noise": 2.0,
    "count-years": 2.0,
    "batch-size": 160,
    "local-rate": 0.1,
    "proximal": 0.0,
    "optimizer": "",
    "server-rate": 0.0,
    "evaluate-every": 1,
    "patience": 0,
    "deadline-s": 600.0,
    "round-every-s": 0.0,
}
"""What stands in the configuration for a key that nobody gave: Flower fills it in, from
`[tool.flwr.app.config]` in pyproject.toml. Beside a plan it says nothing, nor to a run that
goes on."""


@dataclass(frozen=True, slots=True)
class ReferenceLooks:
    """Looks at weights on a reference fleet.

    Attributes:
        evaluate: looks at weights; None where no fleet is named.
        sha256: of the fleet's folder.
    """

    evaluate: Callable[[NDArray[np.float32]], dict[str, float | None]] | None = None
    sha256: str | None = None


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
        recipe=_local_recipe(run_config),
        server=_server_recipe(run_config),
        epsilon=float(value_of(run_config, "epsilon")),
        delta=float(value_of(run_config, "delta")),
        deadline_s=float(value_of(run_config, "deadline-s")),
        update_share=float(value_of(run_config, "update-share")),
        count_years=float(value_of(run_config, "count-years")),
        max_participations=int(value_of(run_config, "max-participations")) or None,
        max_devices_per_owner=int(value_of(run_config, "max-devices-per-owner")),
        holds_out=True,
        patience=int(value_of(run_config, "patience")),
        evaluate_every=int(value_of(run_config, "evaluate-every")),
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


def _local_recipe(run_config: Mapping[str, object]) -> LocalRecipe:
    """Return how devices train.

    Raises:
        ValueError: a value is out of bounds.
    """
    return replace(
        FROM_TRAINED_WEIGHTS.local,
        steps=int(value_of(run_config, "local-steps")),
        sampling_rate=float(value_of(run_config, "sampling-rate")),
        expected_batch_size=int(value_of(run_config, "batch-size")),
        learning_rate=float(value_of(run_config, "local-rate")),
        record_noise_multiplier=float(value_of(run_config, "record-noise")),
        proximal=float(value_of(run_config, "proximal")),
    )


def _server_recipe(run_config: Mapping[str, object]) -> ServerRecipe:
    """Return how released updates move the weights.

    Raises:
        RoundsError: there is no such optimiser.
        ValueError: the rate is out of bounds.
    """
    usual = FROM_TRAINED_WEIGHTS.server
    said = str(run_config.get("optimizer", "")) or usual.optimizer
    name: OptimizerName | None = next((one for one in OPTIMIZER_NAMES if one == said), None)
    if name is None:
        raise RoundsError(f"optimizer is {said!r}, and must be one of {', '.join(OPTIMIZER_NAMES)}")
    rate = float(value_of(run_config, "server-rate"))
    rates: dict[OptimizerName, float] = {
        "fedavg": usual.learning_rate,
        "fedavgm": usual.learning_rate * (1 - usual.momentum),
        "fedadam": WARM_RATE,
    }
    return replace(usual, optimizer=name, learning_rate=rate or rates[name])


def starting_weights(run_config: Mapping[str, object]) -> tuple[NDArray[np.float32], str | None]:
    """Read the weights that a run starts from: of a bundle, or as another run left them.

    Returns:
        float32, shape (n_weights,), and the bundle's version; None for an array.

    Raises:
        RoundsError: nothing there can be read.
        BundleError: the bundle is refused.
    """
    source = str(value_of(run_config, "start-weights"))
    if source == DEFAULT or source.endswith(".zip"):
        from models.training.export_onnx import read_parameters

        where = _default_folder() if source == DEFAULT else source
        bundle = load_bundle(where, allow_unsigned=True)
        return read_parameters(bundle.model_bytes).flat(), bundle.version
    try:
        return read_weights(Path(source)), None
    except (OSError, ValueError) as error:
        remedy = "name the weights.npz of a run, a bundle's .zip, or default"
        raise RoundsError(
            f"start-weights: {source} holds no weights ({error}); {remedy}"
        ) from error


def _default_folder() -> Path:
    """Return the folder of the default bundle as it is installed here.

    Flower's app bundle carries no model: there the one beside this package is missing, and that of
    the installed package is taken.

    Raises:
        RoundsError: it is not installed.
    """
    for place in (str(DEFAULT_FOLDER.parents[1]), *sys.path):
        folder = Path(place) / DEFAULT_FOLDER.parent.name / DEFAULT_FOLDER.name
        if (folder / MODEL).is_file():
            return folder
    raise RoundsError("start-weights: no default bundle is installed here; name a bundle's .zip")


def log_level(run_config: Mapping[str, object]) -> str:
    """Return the least level of the engine's log.

    Raises:
        RoundsError: there is no such level.
    """
    level = str(run_config.get("log-level", "")) or "info"
    if level not in LEVELS:
        raise RoundsError(f"log-level is {level!r}, and must be one of {', '.join(LEVELS)}")
    return level


def reference_looks(run_config: Mapping[str, object], *, patience: int) -> ReferenceLooks:
    """Read the reference fleet on which a run is looked at after its rounds.

    Args:
        run_config: of the Flower run.
        patience: of the run; a run that goes on has its own.

    Raises:
        RoundsError: the run stops early, and no reference is named.
        DatasetError: the reference cannot be used.
    """
    directory = path_of(run_config, "reference")
    if directory is None:
        if patience:
            raise RoundsError(
                f"patience is {patience}, and nothing is looked at; add --run-config "
                "'reference=…', a fleet dataset with outcomes that is nobody's"
            )
        return ReferenceLooks()
    from .quality_looks import looks_at
    from .reference_fleet import ReferenceRows

    look = looks_at(None, reference=ReferenceRows.of(directory).calibrate)
    return ReferenceLooks(evaluate=look, sha256=folder_digest(directory))


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
