"""Carries out a run of rounds from the options it was started with, now or once more.

The options stand in the run's `command.json`, written before anything else, so that whoever goes on
with a run that was killed says them no second time. Keys are named there by path, never copied.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from privacy import StreamPolicy
    from server.engine.group_rule import GroupRuleName
    from server.engine.server_optimizer import OptimizerName, ServerRecipe
    from server.runs.desk import Watching

    from ..rounds import RoundsPlan

COMMAND: Final = "rounds start"
PATHS: Final = ("fleet", "out", "privacy_home", "owners", "stream_key_file", "trusted_key")
_SAID_ANEW: Final = ("resume", "as_json", "workers", "plan_file", "replies", "dropout")
"""Options that a resumed run does not take from its command: they are said again, or worked out."""


def carry_out(
    options: Mapping[str, Any], *, policy: StreamPolicy | None, is_resumed: bool = False
) -> None:
    """Carry a run out, and print what came of it.

    Args:
        options: of `rounds start`, by the names of its parameters; paths may be texts.
        policy: of a plan that is carried out.
        is_resumed: whether the run's folder holds its first part.
    """
    from models.trusted_keys import read_trusted_keys
    from server.owners import read_owners
    from server.streams.stream_key import read_operator_key

    from ..rounds import KeptAt, run_rounds, starting_bundle
    from .rounds_progress import RoundsProgress

    options = {**options, **_paths(options)}
    trusted, sealed_under = options["trusted_key"], options["stream_key_file"]
    start = starting_bundle(
        options["bundle"],
        trusted_keys={} if trusted is None else read_trusted_keys(trusted),
        allow_unsigned=options["allow_unsigned"],
    )
    plan = _plan(options, policy=policy, is_warm=start is not None)
    kept = KeptAt(
        privacy_home=options["privacy_home"],
        operator=None if sealed_under is None else read_operator_key(sealed_under),
        owners={} if options["owners"] is None else read_owners(options["owners"]),
        is_resumed=is_resumed,
        command=command_record(options, policy=policy),
    )
    out, is_json = options["out"], options["as_json"]
    with RoundsProgress(plan, shown=not is_json) as progress:
        outcome = run_rounds(
            options["fleet"],
            out,
            plan,
            clock=lambda: datetime.now(UTC),
            kept=kept,
            start=start,
            on_start=progress.start,
            on_gain=progress.gain,
            on_round=progress.advance,
            watching=_watching(options),
            num_workers=options["workers"],
        )
    print_outcome(outcome.report, out=out, as_json=is_json)


def print_outcome(report: Mapping[str, Any], *, out: Path, as_json: bool) -> None:
    """Print what came of a run that is finished.

    Args:
        report: what stands in `run.json`.
        out: folder of the run.
        as_json: whether as one JSON object.
    """
    from server.runs.run_files import BUNDLE_FILE

    from ..rounds_summary import summary_lines

    exported = str(out / BUNDLE_FILE)
    if as_json:
        print(json.dumps({"out": str(out), "bundle": exported, **report}))
    else:
        print("\n".join(summary_lines(report, result=exported)))


def command_record(options: Mapping[str, Any], *, policy: StreamPolicy | None) -> dict[str, Any]:
    """Return what `command.json` holds of a run's start."""
    kept = {
        name: absolute(name, value) for name, value in options.items() if name not in _SAID_ANEW
    }
    planned = None if policy is None else policy.to_json()
    return {"schema_version": 1, "command": COMMAND, "options": kept, "policy": planned}


def options_from(
    record: Mapping[str, Any], *, out: Path, workers: int | None, as_json: bool
) -> tuple[dict[str, Any], StreamPolicy | None]:
    """Read the options that a run was started with, and its plan.

    Args:
        record: what `command.json` holds.
        out: folder of the run, wherever it is now.
        workers: processes that train; None takes one a core.
        as_json: whether to print one JSON object.

    Raises:
        RunFolderError: it is no start of a run that this version knows.
    """
    from privacy import StreamPolicy
    from server.runs.folder import RunFolderError
    from server.runs.run_files import COMMAND_FILE

    from .rounds import start_command

    usual = _usual_options(start_command)
    try:
        said = dict(record["options"])
        policy = None if record["policy"] is None else StreamPolicy.from_json(record["policy"])
        is_known = record["command"] == COMMAND and set(said) <= set(usual)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{COMMAND_FILE} does not say how the run was started ({error})"
        remedy = "go on with the command that started it, and --resume"
        raise RunFolderError(out, what, remedy) from error
    if not is_known:
        what = f"{COMMAND_FILE} names a command or options that this version does not know"
        raise RunFolderError(out, what, "go on with the version that started it")
    here = {"out": out, "workers": workers, "as_json": as_json, "resume": True}
    return {**usual, **said, **here}, policy


def _paths(options: Mapping[str, Any]) -> dict[str, Path]:
    """Return the options that name files and folders."""
    return {name: Path(options[name]) for name in PATHS if options.get(name) is not None}


def _usual_options(command: Any) -> dict[str, Any]:
    """Return each parameter of a command with its default."""
    import inspect

    parameters = inspect.signature(command).parameters
    return {name: one.default for name, one in parameters.items() if name != "ctx"}


def absolute(name: str, value: Any) -> Any:
    """Return the value of an option as `command.json` keeps it: paths whole, wherever one is."""
    is_path = isinstance(value, Path) or (name == "bundle" and Path(str(value)).exists())
    return str(Path(value).resolve()) if is_path else value


def _plan(options: Mapping[str, Any], *, policy: StreamPolicy | None, is_warm: bool) -> RoundsPlan:
    from ..rounds_recipes import plan_for, under_policy

    group_rule = _group_rule(options["group_rule"])
    is_independent = options["independent_noise"] or group_rule != "none"
    plan = plan_for(
        num_rounds=options["rounds"] or 1,
        cohort_size=options["cohort"],
        epsilon=options["epsilon"] if options["noise"] else None,
        delta=options["delta"],
        is_record_private=options["record_level"],
        is_warm=is_warm,
        clipping_norm=options["clip"],
        target_quantile=options["clip_quantile"],
        server=_server_recipe(options["optimizer"], options["server_rate"], is_warm=is_warm),
        seed=options["seed"],
        evaluate_every=options["evaluate_every"],
        noise="independent" if is_independent else "correlated",
        max_participations=options["max_participations"],
        max_devices_per_owner=options["max_devices_per_owner"],
        min_replies=options["min_replies"],
        patience=options["patience"],
        deadline_s=options["deadline"],
        group_rule=group_rule,
        num_groups=options["groups"],
        proximal=_proximal(options, is_warm=is_warm),
    )
    return plan if policy is None else under_policy(plan, policy)


def _proximal(options: Mapping[str, Any], *, is_warm: bool) -> float:
    """Refuse what would do nothing, or throw devices past the weights that they are held to."""
    from ..rounds_recipes import usual_recipe

    said = float(options["proximal"])
    local = usual_recipe(is_warm=is_warm, is_noised=options["noise"]).local
    what = ""
    if said and local.steps == 1:
        what = "a device takes one step in a round here, and cannot drift; start from a bundle"
    elif said * local.learning_rate > 1.0:
        what = f"must be at most {1 / local.learning_rate:g} at this recipe's rate, got {said:g}"
    if what:
        raise typer.BadParameter(what, param_hint="'--proximal'")
    return said


def _group_rule(said: str) -> GroupRuleName:
    from server.engine.group_rule import GROUP_RULES

    for rule in GROUP_RULES:
        if said == rule:
            return rule
    what = f"{said!r} is none of {', '.join(GROUP_RULES)}"
    raise typer.BadParameter(what, param_hint="'--group-rule'")


def _watching(options: Mapping[str, Any]) -> Watching:
    """Return how the run can be watched, and refuse a level that is none."""
    from server.runs.desk import Watching
    from server.runs.log import LEVELS

    level = options["log_level"]
    if level not in LEVELS:
        raise typer.BadParameter(
            f"{level!r} is none of {', '.join(LEVELS)}", param_hint="'--log-level'"
        )
    return Watching(
        log_level=level,
        metrics_host=options["metrics_host"],
        metrics_port=options["metrics_port"],
        round_every_s=options["round_every"],
    )


def _server_recipe(
    optimizer: str | None, rate: float | None, *, is_warm: bool
) -> ServerRecipe | None:
    from server.engine.server_optimizer import OPTIMIZER_NAMES, WARM_RATE, ServerRecipe

    if optimizer is None and rate is None:
        return None
    if optimizer not in {None, *OPTIMIZER_NAMES}:
        raise typer.BadParameter(
            f"{optimizer!r} is none of {', '.join(OPTIMIZER_NAMES)}", param_hint="'--optimizer'"
        )
    name: OptimizerName = optimizer or "fedadam"
    of_adam = WARM_RATE if is_warm else ServerRecipe().learning_rate
    usual = of_adam if name == "fedadam" else 1.0
    return ServerRecipe(optimizer=name, learning_rate=usual if rate is None else rate)
