"""`fedcell rounds start`: federated rounds over a fleet dataset, beside the server's commands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.rounds import rounds as group

from .rounds_replay import replay

if TYPE_CHECKING:
    from privacy import StreamPolicy
    from server.engine.run_desk import Watching
    from server.server_optimizer import OptimizerName, ServerRecipe

Fleet = Annotated[Path, typer.Option(help="Folder of a fleet dataset with outcomes.")]
Rounds = Annotated[
    int | None, typer.Option(help="Number of rounds; must be said unless --plan says it.", min=1)
]
Out = Annotated[Path, typer.Option(help="New folder for the run.")]
Start = Annotated[
    str, typer.Option(help="Start from: default, a bundle's path, or none (random weights).")
]
Cohort = Annotated[
    int | None,
    typer.Option(help="Devices invited to each round; all of them unless given.", min=1),
]
EpsilonOption = Annotated[float, typer.Option(help="ε of a device's life, over all models.")]
Delta = Annotated[float, typer.Option(help="Its δ, at most 1e-5.", max=1e-5)]
Noise = Annotated[bool, typer.Option(help="Noise on releases; without it nothing can be released.")]
RecordLevel = Annotated[bool, typer.Option(help="Record-level DP-SGD on each device.")]
Clip = Annotated[float | None, typer.Option(help="Clipping norm C of a device's update.", min=0.0)]
ClipQuantile = Annotated[
    float | None,
    typer.Option(help="Let C follow this quantile of updates' lengths, in private; else fixed."),
]
Optimizer = Annotated[
    str | None, typer.Option(help="Server optimiser: fedavg, fedavgm or fedadam.")
]
ServerRate = Annotated[
    float | None, typer.Option(help="Learning rate of the server optimiser.", min=0.0)
]
EvaluateEvery = Annotated[
    int, typer.Option(help="Rounds between two looks at the held-out part.", min=1)
]
Workers = Annotated[
    int | None, typer.Option(help="Processes that train; one a core unless given.", min=1)
]
Seed = Annotated[
    int | None,
    typer.Option(help="Repeat the run: noise is then simulated, nothing can be released."),
]
TrustedKey = Annotated[
    Path | None, typer.Option(help="JSON file of public keys that may sign the bundle.")
]
AllowUnsigned = Annotated[
    bool, typer.Option("--allow-unsigned", help="Start from an unsigned bundle of your own.")
]
Independent = Annotated[
    bool,
    typer.Option(
        "--independent-noise", help="Fresh noise each round, to compare with; never released."
    ),
]
PrivacyHome = Annotated[
    Path | None,
    typer.Option(help="Folder that counts devices over all runs; the run's own unless given."),
]
MaxParticipations = Annotated[
    int | None,
    typer.Option(help="Rounds in a device's life (k); what this run asks unless given.", min=1),
]
Owners = Annotated[
    Path | None,
    typer.Option(
        help="CSV file with the columns device_id and owner; a resumed run keeps its own."
    ),
]
MaxPerOwner = Annotated[int, typer.Option(help="Most devices of one owner in the run.", min=1)]
StreamKeyFile = Annotated[
    Path | None, typer.Option(help="Key file that seals the stream's key and sums; 32 bytes.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run that --out holds, as it was planned.")
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan", help="Policy that fedcell privacy plan --out wrote: its constants are the run's."
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(help="Serve Prometheus metrics on this TCP port; 0 for any free one.", min=0),
]
MetricsHost = Annotated[str, typer.Option(help="Address of that port; loopback unless given.")]
LogLevel = Annotated[
    str, typer.Option(help="Least level of engine.jsonl: debug, info, warning or error.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


_PLANNED = {
    "rounds": "rounds",
    "cohort": "cohort",
    "epsilon": "epsilon",
    "delta": "delta",
    "clip": "clipping-norm",
    "clip_quantile": "clipping-quantile",
    "max_participations": "max-participations",
    "max_devices_per_owner": "max-devices-per-owner",
}
"""Options whose values a plan fixes, and its words for them."""


def register(app: typer.Typer) -> None:
    """Add the group `rounds` with its commands."""
    app.add_typer(group)


group.command("replay")(replay)


@group.command("start")
def start_command(
    ctx: typer.Context,
    fleet: Fleet,
    out: Out,
    rounds: Rounds = None,
    plan_file: PlanFile = None,
    bundle: Start = "default",
    cohort: Cohort = None,
    epsilon: EpsilonOption = 2.0,
    delta: Delta = 1e-8,
    noise: Noise = True,
    independent_noise: Independent = False,
    privacy_home: PrivacyHome = None,
    max_participations: MaxParticipations = None,
    owners: Owners = None,
    max_devices_per_owner: MaxPerOwner = 5,
    stream_key_file: StreamKeyFile = None,
    record_level: RecordLevel = True,
    clip: Clip = None,
    clip_quantile: ClipQuantile = None,
    optimizer: Optimizer = None,
    server_rate: ServerRate = None,
    evaluate_every: EvaluateEvery = 1,
    workers: Workers = None,
    seed: Seed = None,
    resume: Resume = False,
    trusted_key: TrustedKey = None,
    allow_unsigned: AllowUnsigned = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    log_level: LogLevel = "info",
    as_json: AsJson = False,
) -> None:
    """Train the model in federated rounds, with a ledger of what they cost in privacy.

    A real Flower run in its simulation engine: each device trains on its own rows, what it sends is
    clipped, the server adds correlated noise, and the ledger is charged before anything leaves. The
    folder gets run.json, ledger.jsonl, weights.npz, bundle.zip and flower.log.
    """
    from models.trusted_keys import read_trusted_keys
    from server.owners import read_owners
    from server.streams.stream_key import read_operator_key

    from ..rounds import BUNDLE_FILE, KeptAt, run_rounds, starting_bundle
    from ..rounds_recipes import plan_for, under_policy
    from ..rounds_summary import summary_lines
    from .rounds_progress import RoundsProgress

    policy = None if plan_file is None else _policy(plan_file, ctx)
    if rounds is None and policy is None:
        raise typer.BadParameter("say --rounds N, or --plan FILE", param_hint="'--rounds'")
    keys = {} if trusted_key is None else read_trusted_keys(trusted_key)
    start = starting_bundle(bundle, trusted_keys=keys, allow_unsigned=allow_unsigned)
    plan = plan_for(
        num_rounds=rounds or 1,
        cohort_size=cohort,
        epsilon=epsilon if noise else None,
        delta=delta,
        is_record_private=record_level,
        is_warm=start is not None,
        clipping_norm=clip,
        target_quantile=clip_quantile,
        server=_server_recipe(optimizer, server_rate, is_warm=start is not None),
        seed=seed,
        evaluate_every=evaluate_every,
        noise="independent" if independent_noise else "correlated",
        max_participations=max_participations,
        max_devices_per_owner=max_devices_per_owner,
    )
    if policy is not None:
        plan = under_policy(plan, policy)
    kept = KeptAt(
        privacy_home=privacy_home,
        operator=None if stream_key_file is None else read_operator_key(stream_key_file),
        owners={} if owners is None else read_owners(owners),
        is_resumed=resume,
    )
    with RoundsProgress(plan, shown=not as_json) as progress:
        outcome = run_rounds(
            fleet,
            out,
            plan,
            clock=lambda: datetime.now(UTC),
            kept=kept,
            start=start,
            on_start=progress.start,
            on_gain=progress.gain,
            on_round=progress.advance,
            watching=_watching(log_level, host=metrics_host, port=metrics_port),
            num_workers=workers,
        )
    exported = str(out / BUNDLE_FILE)
    if as_json:
        print(json.dumps({"out": str(out), "bundle": exported, **outcome.report}))
        return
    print("\n".join(summary_lines(outcome.report, result=exported)))


def _watching(level: str, *, host: str, port: int | None) -> Watching:
    """Return how the run can be watched, and refuse a level that is none."""
    from server.engine.engine_log import LEVELS
    from server.engine.run_desk import Watching

    if level not in LEVELS:
        raise typer.BadParameter(
            f"{level!r} is none of {', '.join(LEVELS)}", param_hint="'--log-level'"
        )
    return Watching(log_level=level, metrics_host=host, metrics_port=port)


def _policy(path: Path, ctx: typer.Context) -> StreamPolicy:
    """Read a plan, and refuse options that say otherwise."""
    from server.plans.plan_file import PlanContradictedError, read_plan, require_agreement

    said = {
        name
        for name in ctx.params
        if (source := ctx.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }
    plan = read_plan(path)
    trains_privately = plan.record.noise_multiplier > 0
    for name, planned, flag in (
        ("noise", True, "--no-noise"),
        ("independent_noise", False, "--independent-noise"),
        ("record_level", trains_privately, "--record-level or --no-record-level"),
    ):
        if name in said and ctx.params[name] is not planned:
            raise PlanContradictedError(f"{flag} is not what the plan says; leave it out")
    numbers = {key: name for name, key in _PLANNED.items() if name in said}
    require_agreement(
        plan,
        {key: ctx.params[name] for key, name in numbers.items()},
        spelt={key: f"--{name.replace('_', '-')}" for key, name in numbers.items()},
    )
    return plan


def _server_recipe(
    optimizer: str | None, rate: float | None, *, is_warm: bool
) -> ServerRecipe | None:
    from server.server_optimizer import OPTIMIZER_NAMES, WARM_RATE, ServerRecipe

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
