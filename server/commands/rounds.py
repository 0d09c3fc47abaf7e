"""`fedcell rounds`: the group of commands over rounds, and those that need no simulation.

`rounds` is the group; `simulations.commands.rounds` adds what runs rounds over a fleet dataset.
"""

from __future__ import annotations

import typer

from .rounds_begin import begin
from .rounds_deployment import deployment_command, serve, unit
from .rounds_export import export_command
from .rounds_history import explain, history
from .rounds_judge import judge_command
from .rounds_nodes import nodes
from .rounds_steering import cancel, pause
from .rounds_watch import watch

rounds = typer.Typer(
    name="rounds",
    help="Federated rounds: start, watch, steer and explain them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@rounds.callback()
def keep_a_group() -> None:
    """Let the group stay one, however few commands it has."""


rounds.command("export")(export_command)
rounds.command("judge")(judge_command)
rounds.command("watch")(watch)
rounds.command("pause")(pause)
rounds.command("cancel")(cancel)
rounds.command("history")(history)
rounds.command("explain")(explain)
rounds.command("deployment")(deployment_command)
rounds.command("serve")(serve)
rounds.command("nodes")(nodes)
rounds.command("begin")(begin)
rounds.command("unit")(unit)
