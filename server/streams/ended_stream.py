"""A stream whose key is destroyed: nothing more can be released of it, but what it came to is told.

The key goes with the last step. A process that ends after that, and before its report is written,
leaves a stream that is at its end; whoever takes the run up again finishes the report.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from privacy.errors import StreamEndedError
from privacy.ledger import entries_of_stream
from privacy.streams import MECHANISM

from ..privacy_home.privacy_errors import StreamRefusedError
from .stream_agreement import policy_of, require_agreement
from .stream_files import OPEN_A_NEW_STREAM, lock_stream, read_checkpoint
from .stream_key import KEY_FILE
from .stream_norm import StepNorm
from .stream_state import StreamState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from privacy import EntryKind, LedgerEntry

    from ..engine.server_optimizer import OptimizerState
    from ..privacy_home.participation_counts import StepRecord
    from ..privacy_home.privacy_ledger import PrivacyHome
    from .stream_files import Checkpoint
    from .stream_terms import StreamTerms


@dataclass(frozen=True, slots=True)
class NoiseOfEnded:
    """The noise of a stream that has none left.

    Attributes:
        mechanism: name of the mechanism.
        noise_multiplier: σ.
        entry_kind: how the stream's entries are stamped.
        num_rounds: T.
    """

    mechanism: str
    noise_multiplier: float
    entry_kind: EntryKind
    num_rounds: int

    def noise(self, index: int, size: int) -> NoReturn:  # noqa: ARG002 - no step has any
        """Give out nothing.

        Raises:
            StreamEndedError: always.
        """
        raise StreamEndedError(index=index, num_rounds=self.num_rounds)


def has_ended(folder: Path) -> bool:
    """Whether a run's folder holds a stream whose key is destroyed."""
    return not (folder / KEY_FILE).exists()


def ended_stream(
    folder: Path, home: PrivacyHome, terms: StreamTerms, *, lock: int | None = None
) -> tuple[StreamState, OptimizerState]:
    """Return a stream as its last step left it, with weights and optimiser.

    Args:
        folder: of the run.
        home: counts devices and holds the ledger.
        terms: constants of the stream, as its policy says them.
        lock: of the folder, where the caller holds it; it goes over to the stream.

    Raises:
        StreamRefusedError: what is here is older than what was released, or a step is open that
            nobody can release any more; a new stream must be opened.
    """
    lock = lock_stream(folder) if lock is None else lock
    try:
        _, steps = home.stream(terms.stream)
        checkpoint = read_checkpoint(folder)
        charged = entries_of_stream(home.entries, terms.stream)
        require_agreement(folder, checkpoint, steps, charged)
        next_index = checkpoint.index + 1
        _require_released(folder, checkpoint, steps, charged)
        privacy = policy_of(folder, terms).privacy
        state = StreamState(
            folder=folder,
            home=home,
            terms=terms,
            noise=NoiseOfEnded(
                mechanism=MECHANISM,
                noise_multiplier=privacy.noise_multiplier,
                entry_kind=charged[-1].kind,
                num_rounds=terms.num_rounds,
            ),
            size=terms.size(len(checkpoint.state.weights)),
            norm=StepNorm.of(terms, checkpoint.clipping_norm),
            lock=lock,
            next_index=next_index,
            entry=charged[-1],
        )
        state.take_up(steps, num_charged=len(charged))
    except BaseException:
        os.close(lock)
        raise
    return state, checkpoint.state


def _require_released(
    folder: Path,
    checkpoint: Checkpoint,
    steps: Sequence[StepRecord],
    charged: Sequence[LedgerEntry],
) -> None:
    if not charged or not checkpoint.index + 1 == len(steps) == len(charged):
        what = "is gone, and a step of the stream is not released"
        raise StreamRefusedError(folder / KEY_FILE, what, OPEN_A_NEW_STREAM)
