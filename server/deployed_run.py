"""One run of a deployment, read from the configuration that `flwr run --run-config` gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .engine.device_claims import ClaimRule
from .engine.enrolment import Enrolment, read_enrolment
from .engine.run_agreement import require_same, require_same_keys
from .engine.run_configuration import (
    log_level,
    path_of,
    planned_counts,
    planned_rounds,
    reference_looks,
    starting_weights,
    value_of,
)
from .flower_app import PlannedRun
from .owners import read_owners
from .plans.plan_file import require_same_plan, stream_name
from .privacy_home.enrolment_record import EnrolmentSource
from .runs.desk import Watching
from .runs.folder import RunFolder
from .runs.pace import seconds_between_rounds
from .signer import load_signer
from .streams.stream_key import read_operator_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from privacy import StreamPolicy

    from .engine.rounds import RoundsConfig


def deployed_run(run_config: Mapping[str, object]) -> PlannedRun:
    """Read one run, which starts from trained weights, from a deployed Flower run's configuration.

    Keys, with the defaults that `[tool.flwr.app.config]` in pyproject.toml gives them: `out`
    (required: a folder), `start-weights` (required: an .npz with the array `weights`, as a run
    leaves it, a bundle's .zip, or default), `policy-key` (required: key file as `fedcell server
    key` makes it; devices trust its public half for policies), `privacy-home` (required: folder
    that counts devices over all runs), `stream-key-file` (optional: key that seals the stream's),
    `enrolment` (optional: CSV file of the enrolled devices and the nodes they are bound to),
    `owners` (optional: CSV file of devices and owners), `least-nodes` (1: nodes to wait for),
    `plan` (optional: policy that `fedcell privacy plan --out` wrote; its constants are the run's,
    and a key that says otherwise is refused), `rounds` (24), `cohort` (2000), `replies` (0: as
    `cohort` says; else so many are wanted, and `cohort` is worked out), `dropout` (0.0: share of
    devices that is expected not to answer), `min-replies` (1: with fewer a round is noise alone),
    `epsilon` (2.0), `delta` (1e-8), `update-share` (0.85), `count-years` (2.0: how long the rest is
    to last for counts), `max-participations` (0: as many as the schedule asks of a device),
    `max-devices-per-owner` (5), `clipping-norm` (0.3), `clipping-quantile` (0.0: the norm is fixed;
    else the quantile of updates' lengths that it follows), `local-steps` (2), `sampling-rate`
    (0.5), `batch-size` (160), `local-rate` (0.1), `record-noise` (2.0: σ_r on rows; 0 is without),
    `proximal` (0.0: μ of FedProx, at most 10), `optimizer` (optional: fedavg, unless fedavgm or
    fedadam), `server-rate` (0.0: as usual for the optimiser), `reference` (optional: fleet dataset
    with outcomes, nobody's, on which each round is looked at), `evaluate-every` (1: rounds between
    two looks), `patience` (0: looks without gain that end the run; 0 never), `log-level` (optional:
    info, or another), `deadline-s` (600.0), `model-version` (optional: bundle version that devices
    have, to be evaluated by counts), `drift-reference` (optional: JSON file of public shares, as
    `python -m simulations.drift_reference` makes it), `similar-devices` (0; 1 counts them),
    `metrics-every` (0: counts after the last round alone; else rounds between two turns),
    `round-every-s` (0.0: seconds from a round's release to the next invitation),
    `metrics-port` (0: none; else serves Prometheus metrics on loopback), `resume` (0; 1 goes on
    with the run in `out`).

    A run that goes on keeps what it began with: its rounds, its pace, which node a device is bound
    to. Keys may be left out then, and none may contradict it.

    Raises:
        RoundsError: a key is missing, has no value, or contradicts the plan or what the run began
            with.
        ValueError: a value is out of bounds.
    """
    start, started_from = starting_weights(run_config)
    said, plan = planned_rounds(run_config)
    counts = planned_counts(run_config)
    out, is_resumed = Path(value_of(run_config, "out")), bool(int(value_of(run_config, "resume")))
    home = Path(value_of(run_config, "privacy-home"))
    operator, owners = (path_of(run_config, key) for key in ("stream-key-file", "owners"))
    enrolment = enrolment_of(run_config)
    signer = load_signer(Path(value_of(run_config, "policy-key")))
    folder = RunFolder(out, home=home, is_resumed=is_resumed)
    try:
        config, every_s = _under_way(folder, run_config, said=said, plan=plan)
        looks = reference_looks(run_config, patience=config.patience)
        claims = ClaimRule.of(_bound(folder, config.stream, enrolment))
    except BaseException:
        folder.close()
        raise
    return PlannedRun(
        config=config,
        folder=folder,
        start=start,
        operator=None if operator is None else read_operator_key(operator),
        signing_key=signer.key,
        owners={} if owners is None else read_owners(owners),
        enrolment=enrolment,
        claims=claims,
        plan=plan,
        counts=counts,
        is_resumed=folder.is_resumed,
        watching=Watching(
            go_on="flwr run as before, with resume=1 in its --run-config",
            metrics_port=int(str(run_config.get("metrics-port", 0))) or None,
            log_level=log_level(run_config),
            round_every_s=every_s,
        ),
        evaluate=looks.evaluate,
        facts={"started_from": started_from, "reference_sha256": looks.sha256},
    )


def _under_way(
    folder: RunFolder,
    run_config: Mapping[str, object],
    *,
    said: RoundsConfig,
    plan: StreamPolicy | None,
) -> tuple[RoundsConfig, float]:
    """Return what decides a run, and seconds between its rounds: as it began, where it goes on.

    Raises:
        RoundsError: it began with something else than is said now.
        ValueError: the pace is out of bounds.
    """
    every_s = seconds_between_rounds(float(value_of(run_config, "round-every-s")))
    if not folder.is_resumed:
        named = said if plan is None else replace(said, stream=stream_name(plan, folder.home))
        return named, every_s
    kept = folder.config()
    if plan is not None:
        require_same_plan(plan, folder.terms().policy)
    require_same_keys(folder.path, run_config, said=said, kept=kept)
    return kept, _kept_pace(folder, said=every_s)


def knows_who_is_enrolled(run: PlannedRun) -> bool:
    """Whether a run goes on under a record of its fleet, so that nobody need be here yet."""
    return run.is_resumed and run.folder.home.kept_enrolment(run.config.stream)[0] is not None


def _bound(
    folder: RunFolder, stream: str, enrolment: Enrolment | None
) -> dict[str, int | None] | None:
    """Return every enrolled device and the node it is bound to; None where no file ever said it.

    A run that goes on keeps the bindings of before, but for devices that a file binds anew; whom a
    file leaves out by then is sent nothing.
    """
    said = None if enrolment is None else dict(enrolment.nodes)
    if not folder.is_resumed:
        return said
    kept, bindings = folder.home.kept_enrolment(stream)
    if said is None and (kept is None or kept.source is not EnrolmentSource.FILE):
        return None
    if said is None:
        said = dict.fromkeys(() if kept is None else kept.device_ids)
    return {device: bindings.get(device) if node is None else node for device, node in said.items()}


def _kept_pace(folder: RunFolder, *, said: float) -> float:
    """Return the pace of a run that goes on, which is what it began with.

    Raises:
        KeyContradictedError: another one is said now.
    """
    kept = folder.report().get("round_every_s")
    if kept is None:
        return said
    if said:
        require_same(folder.path, "round-every-s", said=said, kept=kept)
    return float(kept)


def enrolment_of(run_config: Mapping[str, object]) -> Enrolment | None:
    """Return the enrolment record that a run's configuration names; None where it names none."""
    path = path_of(run_config, "enrolment")
    return None if path is None else read_enrolment(path)
