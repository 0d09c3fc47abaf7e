"""The command lines as installed: every group is there, every command speaks to machines too."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import typer

from server.commands.root import COMMAND_GROUP, build_app
from tests.support.system_parts import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def leaves(command, path=()):
    """Yield every command that does something, with its words."""
    if not getattr(command, "commands", None):
        yield " ".join(path), command
        return
    for name, child in command.commands.items():
        yield from leaves(child, (*path, name))


def test_installed_entry_points_are_the_declared_ones():
    installed = {entry.name: entry.value for entry in metadata.entry_points(group=COMMAND_GROUP)}

    assert installed == PROJECT["entry-points"][COMMAND_GROUP]


@pytest.mark.parametrize("group", sorted(PROJECT["entry-points"][COMMAND_GROUP]))
def test_group_can_be_loaded(group):
    (entry,) = metadata.entry_points(group=COMMAND_GROUP, name=group)

    assert callable(entry.load())


def test_every_command_has_a_help_and_an_answer_for_machines():
    commands = dict(leaves(typer.main.get_command(build_app())))
    silent = [
        words
        for words, command in commands.items()
        if not any("--json" in option.opts for option in command.params)
    ]

    assert {"doctor", "import-cells", "predict", "evaluate", "rounds start"} <= set(commands)
    assert silent == []
    assert all(command.help for command in commands.values())


def test_shell_completes_commands():
    answer = subprocess.run(
        [Path(sys.executable).with_name("fedcell")],
        env=os.environ
        | {"_FEDCELL_COMPLETE": "complete_bash", "COMP_WORDS": "fedcell doc", "COMP_CWORD": "1"},
        check=False,
        capture_output=True,
        text=True,
    )

    assert answer.stdout.split() == ["doctor"]


def test_program_says_its_version():
    answer = subprocess.run(
        [Path(sys.executable).with_name("fedcell"), "--version"],
        check=True,
        capture_output=True,
        text=True,
    )

    assert answer.stdout.strip() == f"fedcell {PROJECT['version']}"
