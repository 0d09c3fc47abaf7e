"""The files of one stream in its run's folder: how far it came, the aggregate at hand, the weights.

`step.json` names the last step to which devices were invited; `aggregate.bin` holds the committed
sum of the step at hand without noise, sealed under the operator's key where there is one, and is
gone once the step is released; `checkpoint.npz` holds weights and optimiser after the last released
step with the hash of its ledger entry. Each is written aside, synced and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np

from models.durable_file import sync_folder, write_durably
from privacy.canonical_json import canonical_json

from ..engine.server_optimizer import OptimizerState
from ..privacy_home.privacy_errors import HomeUnavailableError, StreamRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .stream_key import OperatorKey

STEP_FILE: Final = "step.json"
AGGREGATE_FILE: Final = "aggregate.bin"
CHECKPOINT_FILE: Final = "checkpoint.npz"
STREAM_LOCK_FILE: Final = "stream.lock"
_NONCE_BYTES: Final = 16
OPEN_A_NEW_STREAM: Final = "open a new stream, with a new name and a new key: a new --out does"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMark:
    """The last step to which devices were invited.

    Attributes:
        stream: of the step.
        index: of the step.
        cohort_digest: of the devices.
    """

    stream: str
    index: int
    cohort_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """The sum of one step, before noise.

    Attributes:
        stream: of the step.
        index: of the step.
        cohort_digest: of the devices invited.
        cohort_size: n, the divisor.
        noise_only: whether the round was aborted; the sum is then zero.
        total: int64, shape (n_weights,), on the grid; with the sum of bits last where the clipping
            norm adapts.
        nonce: drawn anew each time a sum is committed, 32 hexadecimal digits, so that no two
            commits share their noise, of equal sums neither; empty of simulated streams, which
            repeat as a whole, and of sums of yesterday.
    """

    stream: str
    index: int
    cohort_digest: str
    cohort_size: int
    noise_only: bool
    total: NDArray[np.int64]
    nonce: str = ""

    def to_bytes(self) -> bytes:
        """Write header and sum."""
        header = canonical_json(
            {
                "stream": self.stream,
                "index": self.index,
                "cohort_digest": self.cohort_digest,
                "cohort_size": self.cohort_size,
                "noise_only": self.noise_only,
                "size": len(self.total),
                **({"nonce": self.nonce} if self.nonce else {}),
            }
        )
        return header.encode("ascii") + b"\n" + self.total.astype("<i8").tobytes()

    @property
    def digest(self) -> str:
        """SHA-256 of header and sum: what the counts hold of it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @staticmethod
    def from_bytes(content: bytes) -> Aggregate:
        """Read header and sum; the digest is for the caller to compare."""
        header, _, values = content.partition(b"\n")
        fields = json.loads(header)
        size = fields.pop("size")
        total = np.frombuffer(values, dtype="<i8").astype(np.int64)
        if len(total) != size:
            raise ValueError(f"size must be {size}, got {len(total)}")
        return Aggregate(**fields, total=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights and optimiser after a released step.

    Attributes:
        state: weights and moments.
        index: of the step; -1 before the first.
        entry_hash: of the step's ledger entry; empty before the first.
        clipping_norm: C of the next step where it adapts, else None.
    """

    state: OptimizerState
    index: int
    entry_hash: str
    clipping_norm: float | None = None


def new_nonce() -> str:
    """Draw what makes a commit another than all others, of an equal sum too: 32 hex digits."""
    return secrets.token_hex(_NONCE_BYTES)


def lock_stream(folder: Path) -> int:
    """Take a stream for this process alone, as long as the returned descriptor stays open.

    Raises:
        HomeUnavailableError: another process runs it.
    """
    path = folder / STREAM_LOCK_FILE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            what = "is run by another process"
            raise HomeUnavailableError(folder, what, "wait for it, or end it") from None
        # Whoever removed a run that never began may have removed this file in between.
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return handle
        os.close(handle)


def write_mark(folder: Path, mark: StepMark) -> None:
    """Note durably that devices are about to be invited to a step."""
    fields = {"stream": mark.stream, "index": mark.index, "cohort_digest": mark.cohort_digest}
    write_durably(folder / STEP_FILE, (canonical_json(fields) + "\n").encode("ascii"))


def read_mark(folder: Path) -> StepMark | None:
    """Return the last step to which devices were invited; None before the first.

    Raises:
        StreamRefusedError: the file is damaged.
    """
    path = folder / STEP_FILE
    if not path.exists():
        return None
    try:
        return StepMark(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise StreamRefusedError(path, "is damaged", OPEN_A_NEW_STREAM) from None


def write_aggregate(folder: Path, aggregate: Aggregate, operator: OperatorKey | None) -> None:
    """Keep the sum of a step durably, readable for nobody else."""
    content = aggregate.to_bytes()
    if operator is not None:
        content = operator.seal(content, bound_to=_binding(aggregate.stream))
    path = folder / AGGREGATE_FILE
    aside = path.with_name(f".{path.name}.part")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def read_aggregate(
    folder: Path, *, stream: str, digest: str, operator: OperatorKey | None
) -> Aggregate:
    """Read the sum of a step.

    Raises:
        StreamRefusedError: it is not the one that was committed.
    """
    path = folder / AGGREGATE_FILE
    try:
        content = path.read_bytes()
        if operator is not None:
            content = operator.open(content, bound_to=_binding(stream), where=path)
        aggregate = Aggregate.from_bytes(content)
    except FileNotFoundError:
        what = "is gone, and its step is committed"
        raise StreamRefusedError(path, what, OPEN_A_NEW_STREAM) from None
    except (ValueError, TypeError, KeyError):
        raise StreamRefusedError(path, "is damaged", OPEN_A_NEW_STREAM) from None
    if aggregate.digest != digest:
        what = "is not the sum that was committed"
        raise StreamRefusedError(path, what, OPEN_A_NEW_STREAM)
    return aggregate


def discard_aggregate(folder: Path) -> None:
    """Remove the sum of a step that is released: nobody needs it any more."""
    (folder / AGGREGATE_FILE).unlink(missing_ok=True)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Keep weights and optimiser after a step durably."""
    arrays = {
        **checkpoint.state.to_arrays(),
        "index": np.array(checkpoint.index, np.int64),
        "entry_hash": np.frombuffer(checkpoint.entry_hash.encode("ascii"), np.uint8),
    }
    if checkpoint.clipping_norm is not None:
        arrays["clipping_norm"] = np.array(checkpoint.clipping_norm, np.float64)
    write_durably(folder / CHECKPOINT_FILE, npz_bytes(arrays))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read weights and optimiser after the last step kept; yesterday's name no entry.

    Raises:
        StreamRefusedError: there is none, or it is damaged.
    """
    path = folder / CHECKPOINT_FILE
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            named, moved = "entry_hash" in arrays, "clipping_norm" in arrays
            return Checkpoint(
                state=OptimizerState.from_arrays(arrays),
                index=int(arrays["index"].item()),
                entry_hash=arrays["entry_hash"].tobytes().decode("ascii") if named else "",
                clipping_norm=float(arrays["clipping_norm"].item()) if moved else None,
            )
    except FileNotFoundError:
        what = "is not there: the stream never began"
        raise StreamRefusedError(path, what, OPEN_A_NEW_STREAM) from None
    except (ValueError, KeyError, EOFError, OSError, BadZipFile) as error:
        raise StreamRefusedError(path, "is damaged", OPEN_A_NEW_STREAM) from error


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays in numpy's format, without pickles."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type] # numpy's stub takes allow_pickle for a name
    return buffer.getvalue()


def _binding(stream: str) -> bytes:
    return f"fedcell/v1/aggregate\n{stream}".encode()
