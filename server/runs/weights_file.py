"""Files of weights as a run keeps them: one array, read whole or refused in one way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zipfile import BadZipFile

import numpy as np

from models.durable_file import write_durably

from ..streams.stream_files import npz_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_WEIGHTS: Final = "weights"


def write_weights(path: Path, weights: NDArray[np.float32]) -> None:
    """Write weights durably, float32, shape (n_weights,)."""
    write_durably(path, npz_bytes({_WEIGHTS: weights}))


def read_weights(path: Path) -> NDArray[np.float32]:
    """Read weights, float32, shape (n_weights,).

    Raises:
        OSError: the file cannot be read, or is not there.
        ValueError: it holds no weights, or is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            weights: NDArray[np.float32] = arrays[_WEIGHTS].astype(np.float32)
    except (KeyError, EOFError, BadZipFile) as error:
        raise ValueError(str(error)) from error
    return weights
