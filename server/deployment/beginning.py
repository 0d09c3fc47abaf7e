"""Runs of a deployment: begun with checked keys, taken up again with the ones they began with."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.durable_file import write_durably

from ..engine.enrolment import read_enrolment
from ..engine.rounds import RoundsError
from ..engine.run_configuration import (
    log_level,
    path_of,
    planned_counts,
    planned_rounds,
    starting_weights,
)
from ..errors import SettingError
from ..owners import read_owners
from ..runs.beginning import Traces, WayIn
from ..runs.folder import RunFolderError
from ..runs.run_files import REPORT_FILE
from ..signer import load_signer
from ..streams.stream_key import read_operator_key
from .app_pin import pinned_bundle
from .errors import DeploymentError, DeploymentMissingError, ServingError
from .run_keys import FILES, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .control_api import ControlApi, FlowerRun
    from .place import Deployment
    from .run_keys import RunValue

LOOK_S = 0.5
_FORMAT = 1
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunRun:
    """A run that was begun here.

    Attributes:
        number: counted from 1.
        out: its folder.
        run_id: by which Flower knows its newest part.
        begun_at: when that was begun, aware UTC.
        said: keys that differ from the defaults.
    """

    number: int
    out: Path
    run_id: int
    begun_at: datetime
    said: Mapping[str, RunValue]


def keys_of_new_run(
    deployment: Deployment, said: Mapping[str, RunValue], *, number: int
) -> dict[str, RunValue]:
    """Return what a new run is told: what was said, and the deployment's own places.

    Raises:
        SettingError: another policy key was said than the deployment's, which devices trust.
    """
    own = str(deployment.policy_key)
    if said.get("policy-key", own) != own:
        what = f"the deployment's is {own}, and nodes believe no other"
        remedy = f"leave it out, or: fedcell rounds deployment {deployment.folder} --policy-key …"
        raise SettingError("policy-key", what, remedy)
    return {
        "policy-key": own,
        "stream-key-file": str(deployment.stream_key),
        "privacy-home": str(deployment.privacy_home),
        "enrolment": str(deployment.enrolled),
        "out": str(deployment.runs / f"{number:0{_DIGITS}d}"),
        **said,
    }


def check_keys(keys: Mapping[str, RunValue]) -> None:
    """Find before a run is begun what would end it: a key, a file, a contradiction.

    Raises:
        RoundsError: a key is missing, has no value, or contradicts the plan; a file of one
            cannot be read.
        SettingError: a key is missing; enrolment or owners cannot be read.
        KeyFileError: a key file cannot be used.
        BundleError: the bundle that the run starts from is refused.
        ValueError: a value is out of bounds.
    """
    config = whole(keys)
    for key in FILES:
        path = path_of(config, key)
        if path is not None and not path.is_absolute() and config[key] != "default":
            raise SettingError(key, f"must be an absolute path, got {path}", "write it out")
    if not config["start-weights"]:
        remedy = "name the weights.npz of a run, a bundle's .zip, or default"
        raise SettingError("start-weights", "is missing", remedy)
    load_signer(Path(str(config["policy-key"])))
    for key, read in (
        ("stream-key-file", read_operator_key),
        ("enrolment", read_enrolment),
        ("owners", read_owners),
    ):
        path = path_of(config, key)
        if path is not None:
            read(path)
    reference = path_of(config, "reference")
    if reference is not None and not reference.is_dir():
        raise RoundsError(f"reference: {reference} is no folder; name a fleet dataset")
    _require_free_folder(Path(str(config["out"])), is_resumed=bool(config["resume"]))
    log_level(config)
    planned_rounds(config)
    planned_counts(config)
    starting_weights(config)


def begin_run(
    api: ControlApi,
    deployment: Deployment,
    keys: Mapping[str, RunValue],
    *,
    number: int,
    now: datetime,
) -> BegunRun:
    """Have the pinned bundle run with these keys, and keep them.

    Raises:
        DeploymentRefusedError: the bundle is not the pinned one, or the SuperLink refuses.
        ServingError: the SuperLink does not answer.
        DeploymentError: what was begun cannot be kept.
    """
    bundle = pinned_bundle(deployment, load_signer(deployment.policy_key).verify_key)
    run_id = api.start_run(bundle, sha256=hashlib.sha256(bundle).hexdigest(), said=keys)
    begun = BegunRun(
        number=number, out=Path(str(keys["out"])), run_id=run_id, begun_at=now, said=dict(keys)
    )
    kept = {name: value for name, value in keys.items() if name != "resume"}
    content = {"format": _FORMAT, **asdict(begun), "out": str(begun.out), "said": kept}
    content["begun_at"] = now.isoformat()
    path = deployment.begun / f"{number:0{_DIGITS}d}.json"
    try:
        write_durably(path, json.dumps(content, indent=1).encode() + b"\n")
    except OSError as error:
        what = f"run {run_id} was begun, and this cannot be written: {error.strerror}"
        raise DeploymentError(path, what, "check the folder and the disk") from None
    return begun


def begun_runs(deployment: Deployment) -> tuple[BegunRun, ...]:
    """Return the runs that were begun here, the eldest first; what cannot be read is left out."""
    found = (_begun_of(path) for path in sorted(deployment.begun.glob("[0-9]*.json")))
    return tuple(run for run in found if run is not None)


def next_number(deployment: Deployment) -> int:
    """Return the number of the next run: none that was used, also where its record is damaged."""
    used = [*deployment.begun.glob("[0-9]*.json"), *deployment.runs.glob("[0-9]*")]
    numbers = [int(path.stem) for path in used if path.stem.isdecimal()]
    return max(numbers, default=0) + 1


def begun_run(deployment: Deployment, run: Path) -> BegunRun:
    """Return the run of a folder.

    Raises:
        DeploymentMissingError: none of the deployment's runs has this folder.
    """
    wanted = run.expanduser().resolve()
    for begun in reversed(begun_runs(deployment)):
        if begun.out.resolve() == wanted:
            return begun
    remedy = f"they are listed in {deployment.begun}"
    raise DeploymentMissingError(run, "no run of this deployment has this folder", remedy)


def require_over(api: ControlApi, begun: BegunRun) -> None:
    """Refuse to go on with a run that a process of Flower's still carries out.

    Raises:
        ServingError: one does.
    """
    found = api.run(begun.run_id)
    if not found.is_over:
        what = f"is {found.status}: run {begun.run_id} of Flower carries it out"
        remedy = f"watch it: fedcell rounds watch {begun.out}"
        raise ServingError(begun.out, what, remedy)


def watch_beginning(
    api: ControlApi, begun: BegunRun, *, patience_s: float, sleep: Callable[[float], None]
) -> FlowerRun:
    """Look for a while whether a run fails at once; return how it stands.

    Raises:
        ServingError: it has failed.
    """
    end = time.monotonic() + patience_s
    while True:
        found = api.run(begun.run_id)
        if found.is_over:
            if found.sub_status == "failed":
                why = found.details or "it said nothing"
                what = f"the run ended at once: {why}"
                raise ServingError(begun.out, what, "correct what it names, and begin again")
            return found
        has_begun = found.status == "running" and (begun.out / REPORT_FILE).exists()
        if has_begun or time.monotonic() >= end:
            return found
        sleep(LOOK_S)


def _require_free_folder(out: Path, *, is_resumed: bool) -> None:
    way_in = Traces.of(out).way_in(is_resumed=is_resumed)
    if way_in is WayIn.IS_TAKEN:
        remedy = "name another out=…, or go on with it: --resume"
        raise RunFolderError(out, "already holds a run", remedy)


def _begun_of(path: Path) -> BegunRun | None:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return BegunRun(
            number=int(path.stem),
            out=Path(content["out"]),
            run_id=int(content["run_id"]),
            begun_at=datetime.fromisoformat(content["begun_at"]),
            said=dict(content["said"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
