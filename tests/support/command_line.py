"""The command `fedcell`, run in this process as it would be typed."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any

from server.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the one JSON object that was printed."""
        return json.loads(self.out)

    def is_refused(self, code: int, *parts: str) -> bool:
        """Return whether it ended with this code and one line that names all the parts."""
        lines = self.err.strip().splitlines()
        return (
            self.code == code
            and self.out == ""
            and len(lines) == 1
            and all(part in lines[0] for part in parts)
            and "Traceback" not in self.err
        )


def fedcell(*arguments: object) -> Ran:
    """Run `fedcell` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code
    return Ran(
        code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue()
    )
