"""The command `fedcell`: turns what goes wrong into one line and a documented exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from .extras import missing_library_line

if TYPE_CHECKING:
    from collections.abc import Sequence

OUR_PACKAGES = frozenset({"server", "edge_client", "models", "privacy", "simulations"})

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Set before any library is loaded, unless the user has set it. Nothing here phones home; and on
arrays as small as ours, threads wait for each other more than they work."""
WRONG_USAGE = 2
PART_MISSING = 4
OUTSIDE_CONDITION = 6
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `fedcell` and leave the process with a documented exit code.

    Args:
        arguments: what follows the command's name; None takes them from the process.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from .commands.root import invoke
    except ModuleNotFoundError:
        say("fedcell needs the extra 'server': pip install \"fedcell[server]\"")
        sys.exit(PART_MISSING)
    try:
        code = invoke(arguments)
    except KeyboardInterrupt:
        say("fedcell: interrupted")
        code = INTERRUPTED
    except Exception as error:
        found = exit_code_of(error)
        if found is None:
            raise
        say(f"fedcell: {line_of(error)}")
        code = found
    sys.exit(code)


def exit_code_of(error: Exception) -> int | None:
    """Map an error to the exit code of the process: the one place where this is decided.

    The root error class of each of our packages has an attribute `exit_code`, which a subclass may
    override, and its `str()` is the line that the user reads. Beside these: a library that is not
    installed and a file that is not there are missing parts; any other refusal of the operating
    system is an outside condition; a `ValueError` that our own code raised is a wrong argument.

    Returns:
        The code, or None for an error that is a defect and deserves its traceback.
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


def line_of(error: Exception) -> str:
    """Say an error in one line: what, where, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing_library_line(error.name)
    if isinstance(error, OSError) and error.strerror and not hasattr(error, "exit_code"):
        reason = error.strerror[0].lower() + error.strerror[1:]
        return reason if error.filename is None else f"{reason}: {error.filename}"
    return " ".join(str(error).split())


def _raised_by_us(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in OUR_PACKAGES


def say(line: str) -> None:
    """Print one line where a person looks for what went wrong."""
    print(line, file=sys.stderr)
