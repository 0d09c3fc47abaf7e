"""The root of the command line: finds the command groups and runs one command."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

import click
import typer

from ..cli import INTERRUPTED, PART_MISSING, say
from ..extras import missing_library_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMAND_GROUP = "fedcell.commands"


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: what follows the command's name; None takes them from the process.

    Raises:
        Exception: whatever the command's body raised; `server.cli` maps it.
    """
    try:
        answer = root_command()(
            args=None if arguments is None else list(arguments),
            prog_name="fedcell",
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as asked_for_nothing:
        asked_for_nothing.show()
        return asked_for_nothing.exit_code
    except click.ClickException as refused:
        context = getattr(refused, "ctx", None)
        path = "fedcell" if context is None else context.command_path
        say(f"{path}: {refused.format_message().rstrip('.')}; see {path} --help")
        return refused.exit_code
    except click.Abort:
        answer = INTERRUPTED
    if answer == INTERRUPTED:
        say("fedcell: interrupted")
    return answer if isinstance(answer, int) else 0


@cache
def root_command() -> click.Command:
    """Return the whole command line; it takes a fifth of a second, so a process builds it once."""
    return typer.main.get_command(build_app())


def build_app() -> typer.Typer:
    """Build the root command with every group that the entry points name."""
    # Typer escapes brackets for Rich even where the help is plain, which it is so that it can be
    # piped, searched and read at any width.
    typer.core.HAS_RICH = False
    app = typer.Typer(
        name="fedcell",
        help="Battery-health models for device fleets: federated, private, on the device.",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def show_version(value: bool) -> None:
        if value:
            typer.echo(f"fedcell {metadata.version('fedcell')}")
            raise typer.Exit

    @app.callback(invoke_without_command=True)
    def root(
        context: typer.Context,
        *,
        version: bool = typer.Option(  # noqa: ARG001 - answered by its callback
            False,
            "--version",
            help="Print the version and leave.",
            callback=show_version,
            is_eager=True,
        ),
    ) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    add_groups(app, metadata.entry_points(group=COMMAND_GROUP))
    return app


def add_groups(app: typer.Typer, entries: Iterable[metadata.EntryPoint]) -> None:
    """Add each command group, and in place of one that cannot be imported a command that says why.

    Args:
        app: the root command.
        entries: entry points of functions `register(app)`.
    """
    for entry in sorted(entries, key=lambda entry: entry.name):
        try:
            register = entry.load()
        except ModuleNotFoundError as missing:
            _add_refusal(app, entry.name, missing_library_line(missing.name or entry.module))
        else:
            register(app)


def _add_refusal(app: typer.Typer, name: str, reason: str) -> None:
    @app.command(
        name,
        help=f"Not available here: {reason}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def refuse() -> None:
        say(f"fedcell {name}: {reason}")
        raise typer.Exit(PART_MISSING)
