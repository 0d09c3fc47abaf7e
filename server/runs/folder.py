"""The folder of one run on disk, and the privacy home that it charges.

The folder holds `run.json` (the report so far), `weights.npz` (at the end) and the files of the
stream; without another privacy home it is one itself, with its own ledger, and covers this run
alone. Each file but the ledger and the counts is written aside, synced and renamed. Nobody is
invited before `run.json` is there: without it a run that was killed has not begun, and begins anew.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.durable_file import sync_folder, write_durably
from models.wire.rounds import LocalRecipe
from privacy import StreamPolicy

from ..engine.rounds import RoundsConfig, RoundsError
from ..engine.server_optimizer import ServerRecipe
from ..engine.step_facts import STEP_FACTS_FILE
from ..privacy_home.home_files import COUNTS_FILE, HOME_FILE
from ..privacy_home.home_lock import LOCK_FILE
from ..privacy_home.ledger_file import LEDGER_FILE
from ..privacy_home.privacy_ledger import open_home
from ..streams.release_witness import weights_digest
from ..streams.stream_files import (
    AGGREGATE_FILE,
    CHECKPOINT_FILE,
    STEP_FILE,
    STREAM_LOCK_FILE,
    lock_stream,
    npz_bytes,
)
from ..streams.stream_key import KEY_FILE
from ..streams.stream_terms import StreamTerms
from .control import CANCEL_FILE, PAUSE_FILE
from .log import LOG_FILE
from .run_files import COMMAND_FILE, REPORT_FILE, START_FILE, WEIGHTS_FILE
from .status import METRICS_FILE, STATUS_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


_OF_A_RUN: Final = (LEDGER_FILE, REPORT_FILE, KEY_FILE, STEP_FILE, CHECKPOINT_FILE)
_OF_A_STREAM: Final = (
    KEY_FILE,
    STEP_FILE,
    AGGREGATE_FILE,
    CHECKPOINT_FILE,
    STREAM_LOCK_FILE,
    STEP_FACTS_FILE,
)
_OF_WATCHING: Final = (
    STATUS_FILE,
    METRICS_FILE,
    LOG_FILE,
    START_FILE,
    PAUSE_FILE,
    CANCEL_FILE,
)
_OF_A_HOME: Final = (LEDGER_FILE, COUNTS_FILE, HOME_FILE, LOCK_FILE)


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
        held = [name for name in _OF_A_RUN if (path / name).exists()]
        if held and not is_resumed:
            raise RunFolderError(path, f"already holds a run ({held[0]})", "give another --out")
        has_begun = STEP_FILE in held or any(
            _has_content(path, name) for name in (REPORT_FILE, LEDGER_FILE)
        )
        self.is_resumed = is_resumed and has_begun and CHECKPOINT_FILE in held
        if is_resumed and not self.is_resumed:
            if has_begun or not (held or (path / COMMAND_FILE).exists()):
                raise RunFolderError(path, "holds no stream that could go on", "name one")
            self._forget_what_never_began()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if command is not None and not is_resumed:
                text = json.dumps(command, indent=2, ensure_ascii=False) + "\n"
                write_durably(path / COMMAND_FILE, text.encode())
            (path / REPORT_FILE).touch()
            if not self.is_resumed:
                (path / REPORT_FILE).unlink()
            if home is None:
                (path / LEDGER_FILE).touch()
        except OSError as error:
            raise RunFolderError(
                path, f"cannot be written ({error.strerror})", "give another --out"
            ) from error
        sync_folder(path)
        self.home = open_home(path if home is None else home)

    def discard_unless_invited(self, stream: str) -> None:
        """Remove the run's files while nobody was invited: nothing left, so nothing is lost.

        Args:
            stream: of the run.
        """
        _, steps = self.home.stream(stream)
        if steps:
            return
        own = _OF_A_HOME if self.has_own_home else ()
        for name in (REPORT_FILE, WEIGHTS_FILE, COMMAND_FILE, *_OF_A_STREAM, *_OF_WATCHING, *own):
            (self.path / name).unlink(missing_ok=True)

    def _forget_what_never_began(self) -> None:
        """Remove what a run left that was killed before anybody was invited.

        Raises:
            HomeUnavailableError: its process lives, and is about to begin.
        """
        lock = lock_stream(self.path)
        try:
            own = _OF_A_HOME if self.has_own_home else ()
            for name in (REPORT_FILE, *_OF_A_STREAM, *_OF_WATCHING, *own):
                if name not in {STREAM_LOCK_FILE, LOCK_FILE}:
                    (self.path / name).unlink(missing_ok=True)
        finally:
            os.close(lock)

    def config(self) -> RoundsConfig:
        """Return the configuration of the run that the folder holds.

        Raises:
            RunFolderError: its report cannot be read.
        """
        try:
            return config_of(self.report())
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{REPORT_FILE} does not say how the run was planned ({error})"
            raise RunFolderError(self.path, what, "start a new run with another --out") from error

    def terms(self) -> StreamTerms:
        """Return the constants of the stream that the folder holds, whoever is enrolled by now.

        Raises:
            RunFolderError: its report names no policy.
        """
        try:
            return StreamTerms.under(StreamPolicy.from_json(self.report()["privacy"]["policy"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{REPORT_FILE} names no policy of a stream that could go on ({error})"
            raise RunFolderError(self.path, what, "start a new run with another --out") from error

    def report(self) -> dict[str, Any]:
        """Return what `run.json` holds."""
        found: dict[str, Any] = json.loads((self.path / REPORT_FILE).read_bytes())
        return found

    def save_weights(self, weights: NDArray[np.float32]) -> None:
        """Write the run's result as a plain array, float32, shape (n_weights,)."""
        write_durably(self.path / WEIGHTS_FILE, npz_bytes({"weights": weights}))

    def keep_start(self, weights: NDArray[np.float32]) -> None:
        """Keep the weights that the run starts from, so that another person can replay it."""
        write_durably(self.path / START_FILE, npz_bytes({"weights": weights}))

    def start_digest(self) -> str | None:
        """Return the digest of the weights that the run started from; None where none were kept."""
        try:
            with np.load(self.path / START_FILE, allow_pickle=False) as arrays:
                return weights_digest(arrays["weights"])
        except FileNotFoundError:
            return None

    def save_report(self, report: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        text = json.dumps(report, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_durably(self.path / REPORT_FILE, text.encode())


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
    except (OSError, ValueError) as error:
        what = f"{COMMAND_FILE} does not say how the run was started ({error})"
        raise RunFolderError(path, what, "go on with the command that started it") from error
    if not isinstance(found, dict):
        what = f"{COMMAND_FILE} does not say how the run was started"
        raise RunFolderError(path, what, "go on with the command that started it")
    return found


def _has_content(path: Path, name: str) -> bool:
    return (path / name).exists() and (path / name).stat().st_size > 0
