"""The opening of a stream for writing: each one draws a generation, which home and key file share.

The home notes the generation that is to come, then the key file is written anew under it, then the
home notes that this is done, with what tells the file from a copy of it; each durable before the
next. So between any two openings the key file changes, and whoever puts files back must put it
back, too: it is then another file than the home knows, or one of another generation. A crash leaves
the home knowing both generations, the file's old one and the new one, and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from privacy.canonical_json import canonical_json

from ..privacy_home.folder_origin import anchor_of
from ..privacy_home.privacy_errors import StreamRefusedError
from .stream_files import OPEN_A_NEW_STREAM
from .stream_key import KEY_FILE, new_generation, rewrite_secrets
from .stream_terms import bind_noise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from privacy import ReleaseNoise

    from ..privacy_home.participation_counts import StepRecord, StreamRecord
    from ..privacy_home.privacy_ledger import PrivacyHome
    from .stream_key import OperatorKey, StreamSecrets

_PUT_BACK = "was copied or put back from a backup: its steps may have been released already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What the home knows of the last opening of a stream.

    Attributes:
        generation: that the key file holds.
        anchor: what tells that key file from a copy of it.
        coming: generation under which the file is being written; empty once it is.
    """

    generation: str
    anchor: str
    coming: str = ""

    def to_text(self) -> str:
        """Write it as the home keeps it."""
        return canonical_json(asdict(self))


def require_last_opening(
    folder: Path, own: StreamSecrets, record: StreamRecord, noted: str
) -> None:
    """Refuse a key file that is not the one of the stream's last opening.

    Args:
        folder: of the run.
        own: the secrets that it holds.
        record: what the home knows of the stream.
        noted: what it knows of the last opening; empty for streams of yesterday.

    Raises:
        StreamRefusedError: a new stream must be opened.
    """
    anchor = anchor_of(folder / KEY_FILE)
    last = Opening(generation="", anchor=record.anchor)
    if noted:
        last = Opening(**json.loads(noted))
    is_last = (own.generation, anchor) == (last.generation, last.anchor)
    is_half_written = bool(last.coming) and own.generation == last.coming
    if not is_last and not is_half_written:
        raise StreamRefusedError(folder, _PUT_BACK, OPEN_A_NEW_STREAM)


def note_first_opening(folder: Path, home: PrivacyHome, own: StreamSecrets) -> None:
    """Note the opening of a stream whose key file has just been written."""
    home.note_opening(
        own.stream,
        Opening(generation=own.generation, anchor=anchor_of(folder / KEY_FILE)).to_text(),
    )


def open_again(
    folder: Path,
    home: PrivacyHome,
    own: StreamSecrets,
    steps: Sequence[StepRecord],
    *,
    operator: OperatorKey | None,
) -> StreamSecrets:
    """Open a stream under a fresh generation, durably in home and key file.

    Args:
        folder: of the run.
        home: counts devices and holds the ledger.
        own: the secrets as they stand; of the last opening.
        steps: of the stream, as the home holds them.
        operator: seals the key file.

    Returns:
        The secrets as they stand now. What was not committed yet is bound to its sum from now on,
        in streams of yesterday, too.

    Raises:
        StreamKeyError: the disk refuses.
    """
    committed = sum(step.aggregate_digest is not None for step in steps)
    renewed = replace(
        own,
        generation=new_generation(),
        bound_from=committed if own.bound_from is None else own.bound_from,
    )
    key_file = folder / KEY_FILE
    before = Opening(
        generation=own.generation, anchor=anchor_of(key_file), coming=renewed.generation
    )
    home.note_opening(own.stream, before.to_text())
    rewrite_secrets(key_file, renewed, operator=operator if own.is_sealed else None)
    note_first_opening(folder, home, renewed)
    return renewed


def replay(
    noise: ReleaseNoise, own: StreamSecrets, steps: Sequence[StepRecord], *, size: int
) -> None:
    """Bring noise from before the first step to after steps that were released, bit for bit.

    Args:
        noise: of the stream, before its first step.
        own: secrets of the stream.
        steps: that were released, oldest first.
        size: number of weights.
    """
    for step in steps:
        if own.binds(step.index) and step.aggregate_digest is not None:
            bind_noise(noise, step.index, step.aggregate_digest)
        noise.noise(step.index, size)
