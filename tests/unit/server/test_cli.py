from importlib.metadata import EntryPoint

import click
import pytest
import typer
from typer.testing import CliRunner

from models.errors import DatasetError
from server import cli
from server.commands import root


def run_main(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    written = capsys.readouterr()
    return left.value.code, written.out, written.err


def app_that_raises(error):
    app = typer.Typer()

    @app.callback()
    def group():
        """Keep `work` a subcommand."""

    @app.command()
    def work():
        raise error

    return app


@pytest.fixture
def raising(monkeypatch):
    def prepare(error):
        command = typer.main.get_command(app_that_raises(error))
        monkeypatch.setattr(root, "root_command", lambda: command)

    return prepare


def test_version_is_printed(capsys):
    code, out, _ = run_main(capsys, "--version")

    assert code == 0
    assert out.startswith("fedcell 0.")


def test_bare_command_lists_the_commands(capsys):
    code, out, _ = run_main(capsys)

    assert code == 0
    assert "doctor" in out


def test_help_is_plain_text(capsys):
    code, out, _ = run_main(capsys, "doctor", "--help")

    assert code == 0
    assert "[env var: FEDCELL_CELLS; default:" in " ".join(out.split())
    assert not set(out) & set("\\│╭")


def test_unknown_command_is_one_line_and_wrong_usage(capsys):
    code, out, err = run_main(capsys, "no-such-command")

    assert code == 2
    assert out == ""
    assert err == "fedcell: No such command 'no-such-command'; see fedcell --help\n"


def test_unknown_option_names_the_command_whose_help_to_read(capsys):
    code, _, err = run_main(capsys, "doctor", "--no-such-option")

    assert code == 2
    assert err.endswith("see fedcell doctor --help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            DatasetError("fleet", "devices.parquet is empty", "write it again"),
            3,
            "fedcell: fleet: devices.parquet is empty; write it again\n",
        ),
        (FileNotFoundError(2, "No such file", "fleet"), 4, "fedcell: no such file: fleet\n"),
        (PermissionError(13, "Permission denied", "out"), 6, "fedcell: permission denied: out\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            4,
            "fedcell: the library 'torch' is missing; pip install \"fedcell[train]\"\n",
        ),
        (KeyboardInterrupt(), 130, "fedcell: interrupted\n"),
        (click.Abort(), 130, "fedcell: interrupted\n"),
    ],
    ids=["ours", "no file", "system", "library", "interrupted", "aborted"],
)
def test_error_of_a_command_becomes_one_line_and_its_code(raising, capsys, error, code, line):
    raising(error)

    assert run_main(capsys, "work") == (code, "", line)


def test_error_of_a_child_class_may_carry_its_own_code(raising, capsys):
    class PortInUseError(Exception):
        exit_code = 6

    raising(PortInUseError("port 1883 is in use;\n choose another"))

    assert run_main(capsys, "work") == (6, "", "fedcell: port 1883 is in use; choose another\n")


def test_a_defect_keeps_its_traceback(raising):
    raising(RuntimeError("a defect"))

    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["work"])


def test_value_that_our_code_refuses_is_wrong_usage_and_one_that_numpy_refuses_a_defect():
    ours = {"__name__": "privacy.accountant"}
    theirs = {"__name__": "numpy.linalg"}
    codes = []
    for module in (ours, theirs):
        try:
            exec("raise ValueError('epsilon must be positive, got -1')", module)  # noqa: S102
        except ValueError as error:
            codes.append(cli.exit_code_of(error))

    assert codes == [2, None]


def test_group_whose_library_is_missing_says_which_extra_to_install(tmp_path, monkeypatch):
    (tmp_path / "group_without_torch.py").write_text("import torch_that_is_not_here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app = typer.Typer()

    root.add_groups(
        app,
        [
            EntryPoint("doctor", "server.commands.doctor:register", root.COMMAND_GROUP),
            EntryPoint("rounds", "group_without_torch:register", root.COMMAND_GROUP),
        ],
    )
    answer = CliRunner().invoke(app, ["rounds", "start", "--fleet", "here"])

    assert answer.exit_code == 4
    assert "torch_that_is_not_here" in answer.stderr
    assert "pip install" in answer.stderr


def test_without_typer_the_command_names_the_extra(monkeypatch, capsys):
    monkeypatch.delitem(__import__("sys").modules, "server.commands.root")
    monkeypatch.setitem(__import__("sys").modules, "typer", None)

    code, _, err = run_main(capsys, "doctor")

    assert code == 4
    assert err == "fedcell needs the extra 'server': pip install \"fedcell[server]\"\n"


def test_libraries_find_one_thread_and_no_telemetry_unless_the_user_says_otherwise(monkeypatch):
    environment = {"OPENBLAS_NUM_THREADS": "7"}
    monkeypatch.setattr(cli.os, "environ", environment)
    with pytest.raises(SystemExit):
        cli.main(["--version"])

    assert environment == cli.ENVIRONMENT | {"OPENBLAS_NUM_THREADS": "7"}
    assert cli.ENVIRONMENT["OMP_NUM_THREADS"] == "1"
    assert cli.ENVIRONMENT["FLWR_TELEMETRY_ENABLED"] == "0"
