"""The weights that did best on public data, kept durably at each better look.

They were released with noise before they are written, like those of every round.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..streams.release_witness import weights_digest
from .outcome import START_ROUND, best_look
from .run_files import START_FILE
from .weights_file import read_weights, write_weights

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..engine.strategy import FederatedRounds

logger = logging.getLogger(__name__)

BEST_FILE: Final = "best.npz"


def keep_if_best(folder: Path, rounds: FederatedRounds) -> None:
    """Keep the weights of the last round, where its look is the best so far.

    Args:
        folder: of the run.
        rounds: at work, or about to go on; without patience nothing is kept.
    """
    number = rounds.stream.next_index
    if rounds.config.patience and number and _best_number(rounds) == number:
        write_weights(folder / BEST_FILE, rounds.weights())


def best_weights(folder: Path, rounds: FederatedRounds) -> tuple[int, NDArray[np.float32]]:
    """Return the number of the round that did best on public data, and its weights.

    Where they were not kept, or are not what the round released, they are those of the last round.

    Args:
        folder: of the run.
        rounds: that came to their end.
    """
    number = _best_number(rounds)
    last = rounds.stream.next_index, rounds.weights()
    if number is None or number == last[0]:
        return last
    if number == START_ROUND:
        found = _read(folder / START_FILE)
        return last if found is None else (number, found)
    said = {record.index + 1: record.weights_sha256 for record in rounds.records}
    found = _read(folder / BEST_FILE)
    if found is None or weights_digest(found) != said.get(number):
        logger.warning("%s: the weights of round %d are not here", folder, number)
        return last
    return number, found


def _best_number(rounds: FederatedRounds) -> int | None:
    looks = [(record.index + 1, record.metrics) for record in rounds.records]
    best = best_look(rounds.start_metrics, looks)
    return None if best is None else best.number


def _read(path: Path) -> NDArray[np.float32] | None:
    try:
        return read_weights(path)
    except (OSError, ValueError):
        return None
