"""Reading the state that provisioning leaves beside a store: a JSON file that names its format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..errors import EdgeError


def read_state(
    path: Path, *, known_format: int, refusal: Callable[[Path, str, str], EdgeError]
) -> Any:
    """Return what a state file holds, None where there is none.

    Args:
        path: of the file.
        known_format: that this code reads.
        refusal: error of place, what is wrong and what to do.

    Raises:
        EdgeError: `refusal`: the file cannot be read, or is of another format.
        KeyError, TypeError, ValueError: it holds something else.
    """
    try:
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise refusal(path, what, "check the file and its owner") from None
    if content["format"] != known_format:
        what = f"is of format {content['format']!r}, this fedcell reads {known_format}"
        raise refusal(path, what, "install the fedcell that wrote it")
    return content
