"""The command `fedcell-device`, for firmware: small, quick to start, one line for an error."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from .config import ENVIRONMENT_PREFIX, SETTINGS, what_is

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "init": ("device", "make the keys and the store of a new device"),
    "identity": ("identity", "print the public keys, for the server's file of device keys"),
    "join": ("joining", "become a member of a fleet with a one-time token"),
    "record": ("device", "store one reading, or a file of them"),
    "predict": ("prediction", "predict from the stored readings"),
    "personalisation": ("personal", "show what this device learnt of its battery, or reset it"),
    "update": ("prediction", "verify a bundle and put it on trial"),
    "consent": ("owner", "show, grant or withdraw the owner's consent"),
    "owner": ("owner", "show or set the owner's language and quiet hours"),
    "outbox": ("owner", "show what would leave this device, field by field"),
    "run": ("connection", "talk to the server: tell in bands, hear, show, acknowledge"),
    "node": ("node", "take part in the fleet's rounds: run this device's SuperNode"),
    "gateway": ("gateway", "check what the gateway of a site needs, or show how its rounds went"),
    "serve": ("serve", "answer requests of other programs: JSON lines, or a Unix socket"),
    "status": ("status", "show what this device is, holds, runs, sends and may do"),
    "ledger": ("ledger", "show what was given to training, what it cost, what is left"),
    "notices": ("connection", "show the notices that came"),
    "failed": ("owner", "say for the owner that the battery failed, or take it back"),
    "answer": ("connection", "say for the owner what a notice's buttons offer"),
    "check": ("storage", "look through the store; set a damaged one aside and begin anew"),
    "seal": ("storage", "write the store anew, sealed under a key"),
    "sensors": ("field", "show the batteries of this machine, and what each gauge gives"),
    "selftest": ("field", "check that this device computes what was released"),
    "diagnostics": ("field", "write an archive for support, without readings or keys"),
    "systemd": ("field", "write unit files for systemd"),
    "export": ("device", "write everything that the store holds, as JSON"),
    "erase": ("device", "remove the store and the installed models from this device"),
}
"""Each command: its module in `commands`, which has `add_<command>` and `run_<command>`."""

LONG_LIVED = frozenset({"run", "serve", "node"})
WRONG_USAGE = 2
PART_MISSING = 4
OUTSIDE_CONDITION = 6
INTERRUPTED = 130
OUR_PACKAGES = ("edge_client", "models")
EPILOG = f"""Settings may also come from a TOML file (--config) or the environment
({ENVIRONMENT_PREFIX}STORE, ...); flags win. Exit codes: 0 done, 1 the answer is no,
2 wrong usage, 3 bad input, 4 a part is missing, 5 an artefact was refused,
6 an outside condition, 130 interrupted."""


class ShowVersion(argparse.Action):
    """Prints the version and leaves; what reads it is imported only then."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse calls it so
        values: object,  # noqa: ARG002
        option_string: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Print it, and end the process."""
        from importlib.metadata import version

        print(f"fedcell {version('fedcell')}")
        parser.exit()


class TerminalFormatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal; argparse's own way to the width loads half a megabyte."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class OneLineParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and where to read on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=TerminalFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Say it, and end the process with the code of wrong usage."""
        self.exit(WRONG_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fedcell-device`.

    Args:
        arguments: what follows the command's name. None takes them from the process, which ends
            here: a device that predicts once should not pay for tearing numpy down in order.

    Returns:
        The exit code, as documented in docs/reference/exit-codes.md.
    """
    if arguments is not None:
        return run(arguments)
    words = sys.argv[1:]
    _load_little(once=LONG_LIVED.isdisjoint(words))
    code = run(words)
    if sys.stdout is not None:
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(words: Sequence[str]) -> int:
    """Run one command and return its exit code; an error becomes one line on stderr."""
    chosen = make_parser(words).parse_args(words)
    # Before numpy is loaded: one prediction is too small for more.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
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


def _columns() -> int:
    """Return the width of the terminal, 80 where there is none."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80


def _load_little(*, once: bool) -> None:
    """Spare the process what it does not need.

    In one that answers once the cyclic collector finds nothing. Without `_hashlib` the standard
    library hashes with its own SHA-256 instead of loading OpenSSL, 3.6 MB for a few kilobytes of
    bundle.
    """
    if once:
        gc.disable()
    sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type]


def make_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser.

    Args:
        words: of the command line: only the commands among them are loaded, all if there is none.
    """
    common = OneLineParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("settings of every command")
    group.add_argument("--config", metavar="FILE", help="TOML file of settings")
    for setting in SETTINGS:
        flag = "--" + setting.replace("_", "-")
        group.add_argument(flag, metavar="X", help=what_is(setting))
    group.add_argument("--json", action="store_true", help="answer in JSON")
    parser = OneLineParser(
        prog="fedcell-device",
        description="Battery health on one device: record, predict, tell.",
        epilog=EPILOG,
        parents=[common],
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, help="print the version and leave"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in [name for name in COMMANDS if name in words] or COMMANDS:
        home, what = COMMANDS[name]
        module = import_module(f".commands.{home}", __package__)
        command = commands.add_parser(name, help=what, description=what, parents=[common])
        getattr(module, f"add_{name}")(command)
        command.set_defaults(run=getattr(module, f"run_{name}"))
    return parser


def exit_code_of(error: Exception) -> int | None:
    """Map an error to an exit code; None for a defect, which deserves its traceback.

    The root errors of our packages bring their code; a library that is not installed and a file
    that is not there are missing parts; any other refusal of the operating system is an outside
    condition; a `ValueError` of our own code is wrong usage.
    """
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return code
    if isinstance(error, ModuleNotFoundError | FileNotFoundError):
        return PART_MISSING
    if isinstance(error, OSError):
        return OUTSIDE_CONDITION
    if isinstance(error, ValueError) and _raised_by_us(error):
        return WRONG_USAGE
    return None


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
