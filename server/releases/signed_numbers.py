"""The last release number that an offline key signed: a file beside the key, and what it stops.

Devices take no lower number than they have. A server that asks for a signature under a number far
above the last would, once it has it, leave room for no later release: such a request is refused
where the key is, whose holder knows what was signed there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from models.durable_file import write_durably

from .release_errors import ReleaseError, ReleaseInputError

if TYPE_CHECKING:
    from pathlib import Path

MOST_AHEAD: Final = 100
"""So far above the last number a request may be: fifty releases that were never signed."""
SUFFIX: Final = ".signed.json"


def record_path(key_file: Path) -> Path:
    """Return where the last number of a key file is kept, unless told otherwise."""
    return key_file.with_name(key_file.name + SUFFIX)


def last_signed(record: Path) -> int:
    """Return the last release number that was signed, 0 where none was.

    Raises:
        ReleaseInputError: the record cannot be read.
    """
    try:
        number = json.loads(record.read_bytes())["release"]
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "move it away, and name the last release that was signed: --after NUMBER"
        raise ReleaseInputError(record, f"cannot be read ({error!r})", remedy) from error
    if type(number) is not int or number < 0:
        remedy = "move it away, and name the last release that was signed: --after NUMBER"
        raise ReleaseInputError(record, f"holds no release number ({number!r})", remedy)
    return number


def require_near(number: int, *, last: int) -> None:
    """Refuse a number far above the last one.

    Args:
        number: that shall be signed.
        last: the highest that was signed, 0 for none.

    Raises:
        ReleaseError: it is more than `MOST_AHEAD` above.
    """
    if 0 < number <= last + MOST_AHEAD:
        return
    what = f"is not within {MOST_AHEAD} above {last}, the last that was signed here"
    remedy = "sign it only where you know of the releases between: --after NUMBER"
    raise ReleaseError(f"release {number}", what, remedy)


def note_signed(record: Path, number: int) -> None:
    """Keep the highest number that was signed, durably; call it before a signature leaves.

    Raises:
        ReleaseInputError: the folder or the disk refuses.
    """
    if number <= last_signed(record):
        return
    try:
        write_durably(record, f"{json.dumps({'release': number})}\n".encode())
    except OSError as error:
        remedy = "name a file that can be written: --record FILE"
        raise ReleaseInputError(record, f"cannot be written ({error.strerror})", remedy) from error
