"""The folder of a run: made aside, and put in place of the old one when it is whole."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import SimulationsError
from ..run_report import REPORT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class OutputFolderError(SimulationsError):
    """The folder for a run cannot be used; nothing in it was touched.

    Attributes:
        where: the folder.
    """

    def __init__(self, where: object, what: str, *, code: int = 3) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        self.exit_code = code
        super().__init__(f"{where}: {what}; give another --out")


def require_replaceable(out: Path) -> None:
    """Refuse a place that a run must not take.

    Args:
        out: where a run is to be.

    Raises:
        OutputFolderError: something else is there than a run of the demo, or an empty folder.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputFolderError(out, "is no folder")
    if any(out.iterdir()) and not (out / REPORT_FILE).exists():
        raise OutputFolderError(out, "holds something that is no run of the demo")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `out` if the context ends without an error.

    An old run at `out` stays as it is until then, and for good if anything fails.

    Args:
        out: a folder that does not exist, is empty, or holds a run of the demo.

    Raises:
        OutputFolderError: something else is there, or nothing can be written beside it.
    """
    out = out.absolute()
    require_replaceable(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}.new")
    _remove_leftovers(out)
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        raise OutputFolderError(out, what, code=6) from error
    try:
        yield aside
        require_replaceable(out)
        _swap(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(aside: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.replace(old)
    try:
        aside.replace(out)
    except BaseException:
        if old.exists():
            old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """Remove what runs that were killed have left beside `out`; a run moved away comes back."""
    for kind in ("old", "new"):
        for path in out.parent.glob(f".{out.name}.*.{kind}"):
            number = path.name.removeprefix(f".{out.name}.").removesuffix(f".{kind}")
            if not number.isdigit() or _is_alive(int(number)):
                continue
            if kind == "old" and not out.exists():
                path.replace(out)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
