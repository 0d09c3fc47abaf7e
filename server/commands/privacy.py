"""`fedcell privacy`: what is promised about privacy, shown by what ran."""

from __future__ import annotations

import typer

from .privacy_audit import audit
from .privacy_ledger import ledger
from .privacy_plan import plan


def register(app: typer.Typer) -> None:
    """Add the group `privacy` to the root command."""
    group = typer.Typer(
        name="privacy",
        help="Audit, ledger and plan of what models reveal about a device.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )

    @group.callback()
    def keep_a_group() -> None:
        """Let a group of one command stay a group."""

    group.command("audit")(audit)
    group.command("ledger")(ledger)
    group.command("plan")(plan)
    app.add_typer(group)
