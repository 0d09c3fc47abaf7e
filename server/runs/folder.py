"""The folder of one run on disk, and the privacy home that it charges.

The folder holds `run.json` (the report so far), `weights.npz` (at the end) and the files of the
stream; without another privacy home it is one itself, with its own ledger, and covers this run
alone. Each file but the ledger and the counts is written aside, synced and renamed. A process holds
the lock of the stream before it writes anything here, and removes nothing that another one made;
what it may do is decided in `beginning`.
"""

from __future__ import annotations

import json
import os
import weakref
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import sync_folder, write_durably
from models.wire.rounds import LocalRecipe
from privacy import StreamPolicy

from ..engine.rounds import RoundsConfig, RoundsError
from ..engine.server_optimizer import ServerRecipe
from ..engine.step_facts import STEP_FACTS_FILE
from ..privacy_home.home_files import COUNTS_FILE, HOME_FILE
from ..privacy_home.ledger_file import LEDGER_FILE
from ..privacy_home.privacy_errors import PrivacyHomeError
from ..privacy_home.privacy_ledger import open_home
from ..streams.release_witness import weights_digest
from ..streams.stream_files import (
    AGGREGATE_FILE,
    CHECKPOINT_FILE,
    STEP_FILE,
    STREAM_LOCK_FILE,
    lock_stream,
)
from ..streams.stream_key import KEY_FILE
from ..streams.stream_terms import StreamTerms
from .beginning import Traces, WayIn
from .control import CANCEL_FILE, PAUSE_FILE
from .log import LOG_FILE
from .replay_record import first_other_fact
from .run_files import COMMAND_FILE, REPORT_FILE, START_FILE, WEIGHTS_FILE
from .status import METRICS_FILE, STATUS_FILE
from .weights_file import read_weights, write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


_MADE_AT_ITS_BEGINNING: Final = (
    REPORT_FILE,
    KEY_FILE,
    STEP_FILE,
    AGGREGATE_FILE,
    CHECKPOINT_FILE,
    STEP_FACTS_FILE,
    STATUS_FILE,
    METRICS_FILE,
    LOG_FILE,
    START_FILE,
    PAUSE_FILE,
    CANCEL_FILE,
)
_OF_A_HOME: Final = (LEDGER_FILE, COUNTS_FILE, HOME_FILE)


_FACT_WORDS: Final = {
    "fleet_sha256": "the fleet dataset of SHA-256",
    "reference_sha256": "the reference data of SHA-256",
    "started_from": "the weights of bundle",
}


class RunFolderError(RoundsError):
    """The folder for a run cannot be used; nothing was written.

    Attributes:
        where: the folder.
    """

    exit_code = 3

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


class RunFolder:
    """The folder of one run.

    Args:
        path: where; created if missing.
        home: folder of the privacy home that counts devices for life; None makes the run's folder
            one, for this run alone.
        is_resumed: whether it holds a run that is to go on.
        command: how the run is started, to be kept for whoever goes on with it.

    Attributes:
        is_resumed: whether the run goes on; False where it was killed before it began, too.

    Raises:
        RunFolderError: it already holds a run, whose ledger must never be overwritten, cannot be
            made, or holds none that could go on.
        HomeUnavailableError: another process runs it.
        HomeMissingError: the run is to go on, and its home is not there.
        PrivacyHomeError: the home cannot be relied on.
    """

    def __init__(
        self,
        path: Path,
        *,
        home: Path | None = None,
        is_resumed: bool = False,
        command: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.has_own_home = home is None
        _require_way_in(path, is_resumed=is_resumed)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = lock_stream(path)
        except OSError as error:
            raise _cannot_be_written(path, error) from error
        self._lock = weakref.finalize(self, os.close, lock)
        # Another process may have come and gone before the lock was taken.
        way_in = _require_way_in(path, is_resumed=is_resumed)
        self.is_resumed = way_in is WayIn.GO_ON
        self._began_here = not is_resumed
        if way_in is WayIn.BEGIN_ANEW:
            self._remove(*_MADE_AT_ITS_BEGINNING)
        if not self.is_resumed:
            self._prepare(None if is_resumed else command)
        # What a device has spent must never be forgotten because a disk is not mounted.
        may_be_made = not is_resumed or (self.has_own_home and not self.is_resumed)
        self.home = open_home(path if home is None else home, create=may_be_made)

    def hand_over_lock(self) -> int:
        """Give the stream's lock to whoever runs the stream, and closes it.

        Raises:
            HomeUnavailableError: it was handed over before, and is held.
        """
        held = self._lock.detach()
        return lock_stream(self.path) if held is None else int(held[2][0])

    def close(self) -> None:
        """Let go of the lock, unless it was handed over."""
        self._lock()

    def discard_unless_begun(self, stream: str) -> None:
        """Remove what this process made of a run that invited nobody; all else stays as it is.

        Args:
            stream: of the run.
        """
        if not self._began_here:
            return
        try:
            lock = self.hand_over_lock()
        except PrivacyHomeError:
            return
        try:
            _, steps = self.home.stream(stream)
            if not steps and not Traces.of(self.path).has_begun:
                self._remove(COMMAND_FILE, WEIGHTS_FILE, STREAM_LOCK_FILE, *_MADE_AT_ITS_BEGINNING)
        except PrivacyHomeError:
            return
        finally:
            os.close(lock)

    def _prepare(self, command: Mapping[str, Any] | None) -> None:
        """Write what stands in the folder before the run begins."""
        try:
            if command is not None:
                text = json.dumps(command, indent=2, ensure_ascii=False) + "\n"
                write_durably(self.path / COMMAND_FILE, text.encode())
            if self.has_own_home:
                (self.path / LEDGER_FILE).touch()
        except OSError as error:
            raise _cannot_be_written(self.path, error) from error
        sync_folder(self.path)

    def _remove(self, *names: str) -> None:
        """Remove files of a run that never began; the stream's lock is held."""
        own = _OF_A_HOME if self.has_own_home else ()
        for name in (*names, *own):
            (self.path / name).unlink(missing_ok=True)

    def require_facts(self, told: Mapping[str, Any]) -> None:
        """Refuse to go on over other data than the run began with.

        Args:
            told: what a replay must know, as it is now.

        Raises:
            RunFolderError: the run began with something else.
        """
        if not self.is_resumed:
            return
        found = self.report()
        name = first_other_fact(found, told)
        if name is None:
            return
        self.close()
        then, now = str(found["record"][name])[:16], str(told[name])[:16]
        what = f"began with {_FACT_WORDS.get(name, name)} {then}, and this is {now}"
        remedy = "name what it began with, or start a new run with another --out"
        raise RunFolderError(self.path, what, remedy)

    def config(self) -> RoundsConfig:
        """Return the configuration of the run that the folder holds.

        Raises:
            RunFolderError: its report cannot be read.
        """
        try:
            return config_of(self.report())
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            what = f"{REPORT_FILE} does not say how the run was planned ({error})"
            raise RunFolderError(self.path, what, "start a new run with another --out") from error

    def terms(self) -> StreamTerms:
        """Return the constants of the stream that the folder holds, whoever is enrolled by now.

        Raises:
            RunFolderError: its report names no policy.
        """
        try:
            return StreamTerms.under(StreamPolicy.from_json(self.report()["privacy"]["policy"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            what = f"{REPORT_FILE} names no policy of a stream that could go on ({error})"
            raise RunFolderError(self.path, what, "start a new run with another --out") from error

    def report(self) -> dict[str, Any]:
        """Return what `run.json` holds."""
        found: dict[str, Any] = json.loads((self.path / REPORT_FILE).read_bytes())
        return found

    def save_weights(self, weights: NDArray[np.float32]) -> None:
        """Write the run's result as a plain array, float32, shape (n_weights,)."""
        write_weights(self.path / WEIGHTS_FILE, weights)

    def keep_start(self, weights: NDArray[np.float32]) -> None:
        """Keep the weights that the run starts from, so that another person can replay it."""
        write_weights(self.path / START_FILE, weights)

    def start_digest(self) -> str | None:
        """Return the digest of the weights that the run started from; None where none were kept."""
        try:
            return weights_digest(read_weights(self.path / START_FILE))
        except FileNotFoundError:
            return None

    def save_report(self, report: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        write_report(self.path, report)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write `run.json` durably into the folder of a run."""
    text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_durably(folder / REPORT_FILE, text.encode())


def config_of(report: Mapping[str, Any]) -> RoundsConfig:
    """Return the configuration that a report states.

    Raises:
        ValueError, KeyError, TypeError: it states none.
    """
    fields = dict(report["config"])
    fields["recipe"] = LocalRecipe(**fields["recipe"])
    fields["server"] = ServerRecipe(**fields["server"])
    return RoundsConfig(**fields)


def command_of(path: Path) -> dict[str, Any]:
    """Return how the run of a folder was started.

    Raises:
        RunFolderError: nothing says it.
    """
    try:
        found = json.loads((path / COMMAND_FILE).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        what = f"{COMMAND_FILE} does not say how the run was started ({error})"
        raise RunFolderError(path, what, "go on with the command that started it") from error
    if not isinstance(found, dict):
        what = f"{COMMAND_FILE} does not say how the run was started"
        raise RunFolderError(path, what, "go on with the command that started it")
    return found


def _require_way_in(path: Path, *, is_resumed: bool) -> WayIn:
    """Return how this process may enter a folder.

    Raises:
        RunFolderError: it may not.
    """
    traces = Traces.of(path)
    way_in = traces.way_in(is_resumed=is_resumed)
    if way_in is WayIn.IS_TAKEN:
        raise RunFolderError(path, f"already holds a run ({traces.names[0]})", "give another --out")
    if way_in is WayIn.HOLDS_NOTHING:
        raise RunFolderError(path, "holds no stream that could go on", "name one")
    return way_in


def _cannot_be_written(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(path, f"cannot be written ({error.strerror})", "give another --out")
