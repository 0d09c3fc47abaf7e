"""The options of a run that goes on: they come from its folder, and none may contradict it.

Where things are and how the run is watched may be said anew: what a fleet, a privacy home or a key
holds is checked when it is used. Everything that decides the run stays as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from server.engine.rounds import RoundsError

from .rounds_carrying import absolute, options_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from privacy import StreamPolicy

WATCHED: Final = ("metrics_port", "metrics_host", "log_level")
_PLACES: Final = ("fleet", "owners", "privacy_home", "stream_key_file", "trusted_key")
_SAID_ANEW: Final = frozenset({*WATCHED, *_PLACES, "allow_unsigned"})
_OF_THIS_PROCESS: Final = frozenset({"out", "resume", "workers", "as_json"})
_WORKED_OUT: Final = frozenset({"replies", "dropout", "plan_file"})
_IN_CONFIG: Final = {
    "rounds": "num_rounds",
    "cohort": "cohort_size",
    "epsilon": "epsilon",
    "delta": "delta",
    "deadline": "deadline_s",
    "clip": "clipping_norm",
    "clip_quantile": "target_quantile",
    "evaluate_every": "evaluate_every",
    "group_rule": "group_rule",
    "groups": "num_groups",
    "max_participations": "max_participations",
    "max_devices_per_owner": "max_devices_per_owner",
    "min_replies": "min_replies",
    "patience": "patience",
}
"""Options, and what a report calls them: for a run whose start nobody noted."""


class RunContradictedError(RoundsError):
    """What a run began with was said otherwise as it was to go on; nothing was written."""

    exit_code = 2


def options_of_run(
    out: Path, said: Mapping[str, Any], *, planned: Mapping[str, str]
) -> tuple[dict[str, Any], StreamPolicy | None] | None:
    """Return the options that a run goes on with, and its plan; None where nobody noted its start.

    Args:
        out: folder of the run.
        said: options on the command line, by the names of the parameters of `rounds start`.
        planned: those whose values a plan fixes, and its words for them.

    Raises:
        RunContradictedError, PlanContradictedError: one is not what the run began with.
        RunFolderError: what was noted of its start cannot be read.
    """
    from server.runs.folder import command_of
    from server.runs.run_files import COMMAND_FILE

    if not (out / COMMAND_FILE).exists():
        _require_report(out, said)
        return None
    options, policy = options_from(
        command_of(out),
        out=out,
        workers=said.get("workers"),
        as_json=bool(said.get("as_json", False)),
    )
    _require_plan(said, policy, planned=planned)
    is_planned = planned if policy is not None else {}
    for name in said.keys() - _SAID_ANEW - _OF_THIS_PROCESS - _WORKED_OUT - is_planned.keys():
        _require_same(out, name, absolute(name, said[name]), options[name])
    home = said.get("privacy_home")
    if home is not None and options["privacy_home"] is None:
        _require_same(out, "privacy_home", str(home), "none but its own folder")
    return options | {name: value for name, value in said.items() if name in _SAID_ANEW}, policy


def _require_plan(
    said: Mapping[str, Any], policy: StreamPolicy | None, *, planned: Mapping[str, str]
) -> None:
    from server.plans.plan_file import read_plan, require_agreement, require_same_plan

    if said.get("plan_file") is not None:
        require_same_plan(read_plan(Path(said["plan_file"])), policy)
    if policy is not None:
        numbers = {key: said[name] for name, key in planned.items() if name in said}
        require_agreement(
            policy, numbers, spelt={key: _flag(name) for name, key in planned.items()}
        )


def _require_report(out: Path, said: Mapping[str, Any]) -> None:
    """Hold options against the report alone: runs of yesterday noted no command."""
    from server.runs.reading import RunMissingError, read_report

    try:
        config = read_report(out).get("config", {})
    except RunMissingError:
        return
    for name in said.keys() & _IN_CONFIG.keys():
        if _IN_CONFIG[name] in config:
            _require_same(out, name, said[name], config[_IN_CONFIG[name]])


def _require_same(out: Path, name: str, said: Any, began_with: Any) -> None:
    if said != began_with:
        flag = _flag(name, is_off=said is False)
        raise RunContradictedError(
            f"{flag} is not what the run in {out} began with ({began_with}); leave it out, or "
            "start a new run with another --out"
        )


def _flag(name: str, *, is_off: bool = False) -> str:
    return f"--{'no-' if is_off else ''}{name.replace('_', '-')}"
