"""`fedcell rounds start`: rounds over a fleet dataset, beside the server's commands."""

# ruff: noqa: ARG001 - options are handed on as the command's context holds them

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.rounds import rounds as group

from .rounds_replay import replay
from .rounds_resume import resume_command

if TYPE_CHECKING:
    from privacy import StreamPolicy

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
Replies = Annotated[
    int | None,
    typer.Option(help="Replies wanted: so many more are invited as --dropout takes.", min=1),
]
Dropout = Annotated[
    float, typer.Option(help="Share of devices that is expected not to answer, below 1.", min=0.0)
]
MinReplies = Annotated[
    int, typer.Option(help="With fewer answering devices a round is noise alone.", min=1)
]
EpsilonOption = Annotated[float, typer.Option(help="ε of a device's life, over all models.")]
Delta = Annotated[float, typer.Option(help="Its δ, at most 1e-5.", max=1e-5)]
Noise = Annotated[bool, typer.Option(help="Noise on releases; without it nothing can be released.")]
RecordLevel = Annotated[bool, typer.Option(help="Record-level DP-SGD on each device.")]
Clip = Annotated[float | None, typer.Option(help="Clipping norm C of a device's update.", min=0.0)]
Proximal = Annotated[
    float,
    typer.Option(help="μ of FedProx: holds several local steps to the round's weights.", min=0.0),
]
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
Patience = Annotated[
    int,
    typer.Option(
        help="Stop after so many looks at the simulated reference fleet without gain; 0 never.",
        min=0,
    ),
]
Deadline = Annotated[
    float,
    typer.Option(help="Seconds for which a round waits for replies.", min=1.0, max=604_800.0),
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
GroupRule = Annotated[
    str,
    typer.Option(
        help="median or trimmed mean over groups of nodes, with independent noise, to compare with."
    ),
]
Groups = Annotated[int, typer.Option(help="Groups of nodes, where there is a rule.", min=3)]
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
    bool,
    typer.Option("--resume", help="Go on with the run in --out, with the options it began with."),
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
RoundEvery = Annotated[
    float,
    typer.Option(
        help="Seconds from a round's release to the next invitation; 604800 is a week.", min=0.0
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


_PLANNED = {
    "rounds": "rounds",
    "cohort": "cohort",
    "epsilon": "epsilon",
    "delta": "delta",
    "clip": "clipping-norm",
    "clip_quantile": "clipping-quantile",
    "min_replies": "min-replies",
    "max_participations": "max-participations",
    "max_devices_per_owner": "max-devices-per-owner",
}
"""Options whose values a plan fixes, and its words for them."""


def register(app: typer.Typer) -> None:
    """Add the group `rounds` with its commands."""
    group.command("resume")(resume_command)
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
    replies: Replies = None,
    dropout: Dropout = 0.0,
    min_replies: MinReplies = 1,
    epsilon: EpsilonOption = 2.0,
    delta: Delta = 1e-8,
    noise: Noise = True,
    independent_noise: Independent = False,
    group_rule: GroupRule = "none",
    groups: Groups = 8,
    privacy_home: PrivacyHome = None,
    max_participations: MaxParticipations = None,
    owners: Owners = None,
    max_devices_per_owner: MaxPerOwner = 5,
    stream_key_file: StreamKeyFile = None,
    record_level: RecordLevel = True,
    proximal: Proximal = 0.0,
    clip: Clip = None,
    clip_quantile: ClipQuantile = None,
    optimizer: Optimizer = None,
    server_rate: ServerRate = None,
    evaluate_every: EvaluateEvery = 1,
    patience: Patience = 0,
    deadline: Deadline = 600.0,
    workers: Workers = None,
    seed: Seed = None,
    resume: Resume = False,
    trusted_key: TrustedKey = None,
    allow_unsigned: AllowUnsigned = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    log_level: LogLevel = "info",
    round_every: RoundEvery = 0.0,
    as_json: AsJson = False,
) -> None:
    """Train the model in federated rounds, with a ledger of what they cost in privacy.

    A real Flower run in its simulation engine: each device trains on its own rows, what it sends is
    clipped, the server adds correlated noise, and the ledger is charged before anything leaves. The
    folder gets run.json, ledger.jsonl, weights.npz, bundle.zip and flower.log.
    """
    from .rounds_carrying import carry_out

    invited = _invited(cohort, replies=replies, dropout=dropout)
    if resume and _goes_on(ctx, invited=invited):
        return
    policy = None if plan_file is None else _policy(plan_file, ctx, invited=invited)
    if rounds is None and policy is None:
        raise typer.BadParameter("say --rounds N, or --plan FILE", param_hint="'--rounds'")
    carry_out({**ctx.params, "cohort": invited}, policy=policy, is_resumed=resume)


def _goes_on(ctx: typer.Context, *, invited: int | None) -> bool:
    """Go on with the run that is here, and tell whether there was one."""
    from .rounds_carrying import carry_out
    from .rounds_taken_up import options_of_run

    given = {name: ctx.params[name] for name in _said(ctx)}
    if ctx.params["replies"] is not None:
        given["cohort"] = invited
    found = options_of_run(Path(ctx.params["out"]), given, planned=_PLANNED)
    if found is not None:
        carry_out(found[0], policy=found[1], is_resumed=True)
    return found is not None


def _invited(cohort: int | None, *, replies: int | None, dropout: float) -> int | None:
    """Return how many devices are invited: as many as are named, or as the replies take."""
    from server.engine.over_invitation import invited_for

    if replies is None:
        if dropout:
            raise typer.BadParameter("say --replies N as well", param_hint="'--dropout'")
        return cohort
    invited = invited_for(replies, dropout=dropout)
    if cohort not in {None, invited}:
        raise typer.BadParameter(
            f"{replies} replies take a cohort of {invited}, not {cohort}", param_hint="'--cohort'"
        )
    return invited


def _said(ctx: typer.Context) -> set[str]:
    """Return the options that stand on the command line."""
    return {
        name
        for name in ctx.params
        if (source := ctx.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }


def _policy(path: Path, ctx: typer.Context, *, invited: int | None) -> StreamPolicy:
    """Read a plan, and refuse options that say otherwise."""
    from server.plans.plan_file import PlanContradictedError, read_plan, require_agreement

    said = _said(ctx)
    plan = read_plan(path)
    trains_privately = plan.record.noise_multiplier > 0
    for name, planned, flag in (
        ("noise", True, "--no-noise"),
        ("independent_noise", False, "--independent-noise"),
        ("group_rule", "none", "--group-rule"),
        ("record_level", trains_privately, "--record-level or --no-record-level"),
    ):
        if name in said and ctx.params[name] != planned:
            raise PlanContradictedError(f"{flag} is not what the plan says; leave it out")
    spelt = {key: f"--{name.replace('_', '-')}" for name, key in _PLANNED.items()}
    if "replies" in said:
        said, spelt["cohort"] = said | {"cohort"}, "--replies"
    numbers = {key: name for name, key in _PLANNED.items() if name in said}
    values = {**ctx.params, "cohort": invited}
    require_agreement(
        plan,
        {key: values[name] for key, name in numbers.items()},
        spelt=spelt,
    )
    return plan
