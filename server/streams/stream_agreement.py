"""Whether a stream may go on: what its files, its key and the privacy home say must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..privacy_home.privacy_errors import StreamRefusedError
from .stream_files import CHECKPOINT_FILE, OPEN_A_NEW_STREAM, STEP_FILE, read_mark
from .stream_key import KEY_FILE
from .stream_opening import require_last_opening

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from privacy import LedgerEntry, ReleaseNoise, StreamPolicy

    from ..privacy_home.participation_counts import StepRecord, StreamRecord
    from .stream_files import Checkpoint
    from .stream_key import StreamSecrets
    from .stream_terms import StreamTerms


def policy_of(folder: Path, terms: StreamTerms) -> StreamPolicy:
    """Return the policy of a stream that can be resumed.

    Raises:
        StreamRefusedError: it has none, being a comparison.
    """
    if terms.policy is None:
        what = "is a comparison, whose noise cannot be made again"
        raise StreamRefusedError(folder, what, "run it anew, with another --out")
    return terms.policy


def require_own_kind(folder: Path, own: StreamSecrets, noise: ReleaseNoise) -> None:
    """Refuse a simulated stream's key as a real one's, and the other way round."""
    if noise.entry_kind != own.kind:
        what = f"holds the key of a stream of kind {own.kind}, not {noise.entry_kind}"
        raise StreamRefusedError(folder / KEY_FILE, what, OPEN_A_NEW_STREAM)


def require_own_stream(
    folder: Path,
    own: StreamSecrets,
    record: StreamRecord | None,
    terms: StreamTerms,
    *,
    noted: str,
) -> None:
    """Refuse a key, a home and a policy that are not of one stream, or not where they were made.

    Args:
        folder: of the run.
        own: the secrets that it holds.
        record: what the home knows of the stream.
        terms: as the policy says them.
        noted: what the home knows of the stream's last opening.

    Raises:
        StreamRefusedError: a new stream must be opened.
    """
    if record is None:
        what = f"the privacy home knows no stream {terms.stream!r}"
        raise StreamRefusedError(folder, what, OPEN_A_NEW_STREAM)
    told = (own.stream, own.policy_digest, record.policy_digest)
    if told != (terms.stream, terms.policy_digest, terms.policy_digest):
        what = "key, privacy home and policy are not of one stream"
        raise StreamRefusedError(folder, what, OPEN_A_NEW_STREAM)
    require_last_opening(folder, own, record, noted)


def require_agreement(
    folder: Path,
    checkpoint: Checkpoint,
    steps: Sequence[StepRecord],
    charged: Sequence[LedgerEntry],
) -> None:
    """Refuse whatever a crash cannot leave: one of the files is older than the others.

    Args:
        folder: of the run.
        checkpoint: that it holds.
        steps: of the stream, as the home holds them.
        charged: the stream's entries in the ledger.

    Raises:
        StreamRefusedError: a new stream must be opened.
    """
    last_invited, last_charged = len(steps) - 1, len(charged) - 1
    if not last_charged <= last_invited <= last_charged + 1:
        what = f"invited up to step {last_invited}, and charged up to step {last_charged}"
        raise StreamRefusedError(folder, what, OPEN_A_NEW_STREAM)
    at = folder / CHECKPOINT_FILE
    if not last_invited - 1 <= checkpoint.index <= last_charged:
        what = f"is of step {checkpoint.index}, and the ledger's head of step {last_charged}"
        raise StreamRefusedError(at, what, OPEN_A_NEW_STREAM)
    if checkpoint.index >= 0 and charged[checkpoint.index].hash != checkpoint.entry_hash:
        what = f"names another ledger entry of step {checkpoint.index}"
        raise StreamRefusedError(at, what, OPEN_A_NEW_STREAM)
    mark = read_mark(folder)
    marked = -1 if mark is None else mark.index
    if not last_invited - 1 <= marked <= last_invited:
        what = f"is of step {marked}, and devices were invited up to step {last_invited}"
        raise StreamRefusedError(folder / STEP_FILE, what, OPEN_A_NEW_STREAM)
    if mark is not None and mark.cohort_digest != steps[mark.index].cohort_digest:
        what = f"names another cohort of step {mark.index}"
        raise StreamRefusedError(folder / STEP_FILE, what, OPEN_A_NEW_STREAM)
