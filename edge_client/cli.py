"""The command `fedcell-device`, for firmware: small, quick to start, one line for an error."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .commands import connection, device, owner, prediction
from .config import ENVIRONMENT_PREFIX, SETTINGS, what_is

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WRONG_USAGE = 2
PART_MISSING = 4
OUTSIDE_CONDITION = 6
INTERRUPTED = 130
OUR_PACKAGES = ("edge_client", "models")
EPILOG = f"""Settings may also come from a TOML file (--config) or the environment
({ENVIRONMENT_PREFIX}STORE, ...); flags win. Exit codes: 0 done, 1 the answer is no,
2 wrong usage, 3 bad input, 4 a part is missing, 5 an artefact was refused,
6 an outside condition, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fedcell-device`.

    Args:
        arguments: what follows the command's name; None takes them from the process.

    Returns:
        The exit code, as documented in docs/reference/exit-codes.md.
    """
    _one_thread()
    chosen = make_parser().parse_args(arguments)
    try:
        code: int = chosen.run(chosen)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the answer has seen enough; nothing is left to flush at exit.
        sys.stdout = None
        return 0
    except Exception as error:
        found = exit_code_of(error)
        if found is None:
            raise
        return _say(_line_of(error), found)
    return code


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("settings of every command")
    group.add_argument("--config", metavar="FILE", help="TOML file of settings")
    for setting in SETTINGS:
        flag = "--" + setting.replace("_", "-")
        group.add_argument(flag, metavar="X", help=what_is(setting))
    group.add_argument("--json", action="store_true", help="answer in JSON")
    parser = argparse.ArgumentParser(
        prog="fedcell-device",
        description="Battery health on one device: record, predict, tell.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], what: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what, parents=[common])
        command.set_defaults(run=run)
        return command

    for module in (device, prediction, owner, connection):
        module.add_parsers(add)
    return parser


def exit_code_of(error: Exception) -> int | None:
    """Map an error to an exit code; None for a defect, which deserves its traceback.

    The root errors of our packages bring their code; a library that is not installed is a missing
    part; what the operating system refuses is an outside condition; a `ValueError` of our own code
    is wrong usage.
    """
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code
    if isinstance(error, ModuleNotFoundError):
        return PART_MISSING
    if isinstance(error, OSError):
        return OUTSIDE_CONDITION
    if isinstance(error, ValueError) and _raised_by_us(error):
        return WRONG_USAGE
    return None


def _one_thread() -> None:
    # Before numpy is loaded: one prediction is too small for more.
    import os

    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _raised_by_us(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in OUR_PACKAGES


def _line_of(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the library '{error.name}' is missing; pip install --force-reinstall fedcell"
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror[0].lower()}{error.strerror[1:]}"
    return " ".join(str(error).split())


def _say(line: str, code: int) -> int:
    print(f"fedcell-device: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
