"""Which bundle a device runs: the one that ships with the package, or one that was installed.

Every check is made when a bundle is installed (`bundle_gate`). The state then records the digest,
which covers every byte of the bundle, and at each start the slot is checked against that alone: no
key is needed. What the state means is decided in `slots`; `slot_file` keeps it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SlotError
from .updates.slot_file import SlotFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.bundle import Bundle
    from models.errors import BundleError

    from .updates.bundle_gate import TrialLimits
    from .updates.slots import InstalledBundle, Refusal, SlotState

INSTALLED = "installed"
ENDING = ".models"
_DAMAGED = "slot_damaged"
_NOT_FOR_THIS_CLIENT = frozenset({"client_too_old", "unsupported_spec"})


class ModelStore:
    """The folder of installed bundles, beside a device's store.

    Args:
        folder: made at the first installation, for the user who installs alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = SlotFile(folder)
        self._opened: str | None = None
        self._counted: str | None = None
        self._must_not_try = False

    @staticmethod
    def beside(store: Path) -> ModelStore:
        """Return the folder of bundles that belongs to a device's store."""
        return ModelStore(store.with_name(store.name + ENDING))

    def install(
        self,
        source: Path,
        *,
        trusted_keys: Mapping[str, bytes],
        allow_unsigned: bool = False,
        allow_older: bool = False,
        allow_rolled_back: bool = False,
        now: datetime | None = None,
        limits: TrialLimits | None = None,
        backend: str | None = None,
    ) -> InstalledBundle:
        """Check a bundle, try it out in a child process, and put it on trial; else nothing changes.

        Args:
            source: zip or folder.
            trusted_keys: Ed25519 public keys (32 raw bytes) by key id.
            allow_unsigned: accept a bundle without signature, for experiments of one's own.
            allow_older: accept an older release than the one that was committed last.
            allow_rolled_back: accept a version that failed its trial on this device.
            now: the moment that a refusal is recorded with; None takes the system's clock.
            limits: of the child process.
            backend: `onnxruntime` or `numpy`; None takes the best of this machine.

        Raises:
            models.errors.BundleError: the bundle is refused and the refusal recorded; the device
                runs what it ran before.
            SlotError: the folder cannot be written, or no child process started.
        """
        from models.errors import ArtefactMissingError, BundleError

        from .updates.bundle_gate import check_history, try_out, verify

        try:
            bundle = verify(source, trusted_keys=trusted_keys, allow_unsigned=allow_unsigned)
            leave = {"allow_older": allow_older, "allow_rolled_back": allow_rolled_back}
            check_history(self.state(), bundle, **leave)
            self._file.make_folder()
            try_out(bundle, scratch=self.folder, limits=limits, backend=backend)
            with self._file.locked():
                state = self.state()
                check_history(state, bundle, **leave)
                return self._put_on_trial(state, bundle)
        except ArtefactMissingError:
            raise
        except BundleError as error:
            self.record_refusal(error, now=now)
            raise
        except OSError as error:
            raise self._unwritable(error) from error

    def record_refusal(self, error: BundleError, *, now: datetime | None = None) -> None:
        """Remember that a bundle was refused, where the folder can be written."""
        from .updates import slots

        reasons = {reason.value: reason for reason in slots.RefusalReason}
        reason = reasons.get(error.reason, slots.RefusalReason.ALTERED)
        what = _what(error)
        self._try_to_change(
            lambda state: slots.refused(
                state, version=error.version, reason=reason, what=what, at=_at(now)
            )
        )

    def installed(self) -> InstalledBundle | None:
        """Return what the device runs: on trial, else committed; None for the default bundle.

        Raises:
            SlotError: the disk refuses.
        """
        return self.state().running

    def committed(self) -> InstalledBundle | None:
        """Return what the device would go back to from a trial, None for the default bundle.

        Raises:
            SlotError: the disk refuses.
        """
        state = self.state()
        return state.content(state.committed)

    def is_on_trial(self) -> bool:
        """Say whether the installed bundle has yet to make its first report.

        Raises:
            SlotError: the disk refuses.
        """
        return self._on_trial() is not None

    def last_refusal(self) -> Refusal | None:
        """Return the bundle that was refused or rolled back last, with the reason and the time.

        Raises:
            SlotError: the disk refuses.
        """
        return self.state().refusal

    def begin_boot(self, now: datetime | None = None) -> Refusal | None:
        """Count a start of the bundle on trial; call it before the model is loaded and run.

        An object counts one start of a bundle, however often it is asked. Where the count cannot
        be written, it runs the committed bundle.

        Returns:
            What was rolled back just now, because it made no report in its starts; else None.
        """
        trial = self._on_trial()
        if trial is None or trial.digest == self._counted:
            return None
        from .updates import slots

        at = _at(now)
        state = self._try_to_change(lambda state: slots.started(state, at=at))
        self._counted = trial.digest
        self._must_not_try = state is None
        if state is None or state.refusal is None or trial.version not in state.rolled_back:
            return None
        _warn("model %s was given up: %s", state.refusal.version, state.refusal.what)
        return state.refusal

    def commit(self, now: datetime | None = None, *, digest: str | None = None) -> bool:
        """Keep the bundle on trial; call it after a report was made with it.

        Args:
            now: the moment that is recorded.
            digest: of the bundle that made the report; None takes the one that this object opened
                last. One that was installed meanwhile stays on trial.

        Returns:
            Whether a bundle was committed now. False, too, where the disk refuses: the trial goes
            on, and the next report tries again.
        """
        if self._on_trial() is None:
            return False
        from .updates import slots

        reported = digest or self._opened
        at = _at(now)

        def decide(state: SlotState) -> SlotState:
            trial = state.content(state.trial)
            is_other = trial is not None and reported not in {None, trial.digest}
            return state if is_other else slots.committed(state, at=at)

        state = self._try_to_change(decide)
        return state is not None and state.trial is None

    def open(
        self,
        choice: str = INSTALLED,
        *,
        trusted_keys: Mapping[str, bytes] | None = None,
        now: datetime | None = None,
    ) -> Bundle:
        """Load the bundle that the device shall run.

        There is always one that works: a slot on trial that cannot be used is rolled back at once,
        a committed one that was damaged gives way to the bundle that was committed before it, and
        in the end everything gives way to the default bundle, as does one that needs another
        client (after fedcell itself was changed). Each is said and recorded as a refusal.

        Args:
            choice: `installed` (the default bundle where nothing was installed), `default`, or the
                path of a bundle, whose signature and structure are checked; nothing of it is run.
            trusted_keys: for a path: Ed25519 public keys (32 raw bytes) by key id.
            now: the moment that a rollback is recorded with.

        Raises:
            models.errors.BundleError: the bundle of a path is refused, or the default one damaged.
        """
        from models.bundle import DEFAULT, load_bundle

        if choice == DEFAULT or (choice == INSTALLED and not self._file.exists()):
            bundle = load_bundle(DEFAULT)
        elif choice != INSTALLED:
            from .updates.bundle_gate import verify

            bundle = verify(Path(choice), trusted_keys=trusted_keys or {})
        else:
            bundle = self._open_installed(now)
        self._opened = bundle.digest
        return bundle

    def _open_installed(self, now: datetime | None) -> Bundle:
        self.mend_record(now)
        state = self._readable_state()
        while True:
            try:
                return self._open_slot(state, now)
            except SlotError as error:
                # Another process may have installed and removed bundles since the state was read.
                later = self._readable_state()
                if later == state:
                    return self._open_what_is_left(state, error, now)
                state = later

    def _open_slot(self, state: SlotState, now: datetime | None) -> Bundle:
        from models.bundle import DEFAULT, load_bundle
        from models.errors import BundleError

        trial = None if self._must_not_try else state.content(state.trial)
        if trial is not None:
            try:
                return self._load(trial)
            except OSError as error:
                _warn("the bundle on trial is not run this time: %s", error)
            except (SlotError, BundleError) as error:
                self._give_up(trial, error, now)
        committed = state.content(state.committed)
        if committed is None:
            return load_bundle(DEFAULT)
        try:
            return self._load(committed)
        except BundleError as error:
            self._note_once(state, error, now)
            return load_bundle(DEFAULT)
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
            raise SlotError(self.folder / committed.file, what, "check the disk") from error

    def _open_what_is_left(
        self, state: SlotState, damage: SlotError, now: datetime | None
    ) -> Bundle:
        """Load the bundle that was committed before the damaged one, else the default bundle."""
        from models.bundle import DEFAULT, load_bundle
        from models.errors import BundleError

        committed = state.content(state.committed)
        version = "" if committed is None else committed.version
        _warn("the installed model %s is not run: %s", version, damage)
        error = BundleError(damage.where, _what(damage), "", reason=_DAMAGED, version=version)
        self._note_once(state, error, now)
        earlier = None if state.trial is not None else state.content(state.free)
        if earlier is not None:
            with suppress(SlotError, BundleError, OSError):
                return self._load(earlier)
        return load_bundle(DEFAULT)

    def _note_once(self, state: SlotState, error: BundleError, now: datetime | None) -> None:
        known = state.refusal
        if known is None or (known.version, known.reason) != (error.version, error.reason):
            self.record_refusal(error, now=now)

    def mend_record(self, now: datetime | None = None) -> str | None:
        """Set a damaged record of the bundles aside, and write it anew from its copy.

        Where the copy is damaged, too, the new record holds nothing.

        Returns:
            What was wrong; None where the record is sound, or the disk refuses to tell.
        """
        from models.errors import BundleError

        with suppress(SlotError):
            what = self._file.damage()
            if what is not None:
                _warn("the record of bundles is written anew: %s", what)
                error = BundleError(self.folder, what, "", reason=_DAMAGED)
                self.record_refusal(error, now=now)
            elif self._file.is_half_written():
                self._try_to_change(lambda state: state)
            return what
        return None

    def state(self) -> SlotState:
        """Return all that is known of the bundles; nothing, where every record of it is damaged.

        Raises:
            SlotError: the disk refuses.
        """
        return self._file.read()

    def _readable_state(self) -> SlotState:
        try:
            return self.state()
        except SlotError as error:
            from .updates.slots import SlotState

            _warn("the default model is run: %s", error)
            return SlotState()

    def _on_trial(self) -> InstalledBundle | None:
        if not self._file.exists():
            return None
        state = self._readable_state()
        return state.content(state.trial)

    def _load(self, held: InstalledBundle) -> Bundle:
        """Load a slot; its digest is what was verified when it was installed.

        Raises:
            BundleError: it does not fit this client.
            SlotError: it is damaged or gone.
            OSError: it cannot be read now.
        """
        from models.bundle import load_bundle
        from models.errors import BundleError

        path = self.folder / held.file
        try:
            return load_bundle(path, expected_digest=held.digest)
        except BundleError as error:
            if error.reason in _NOT_FOR_THIS_CLIENT:
                raise
            raise SlotError(path, _what(error), "install it again") from error
        except FileNotFoundError as error:
            raise SlotError(path, "is gone", "install it again") from error

    def _give_up(
        self, trial: InstalledBundle, error: SlotError | BundleError, now: datetime | None
    ) -> None:
        from .updates import slots

        what = _what(error)

        def decide(state: SlotState) -> SlotState:
            found = state.content(state.trial)
            if found is None or found.digest != trial.digest:
                return state
            reason = slots.RefusalReason.SLOT_DAMAGED
            return slots.rolled_back(state, reason=reason, what=what, at=_at(now))

        _warn("the bundle on trial is given up: %s", error)
        self._try_to_change(decide)

    def _put_on_trial(self, state: SlotState, bundle: Bundle) -> InstalledBundle:
        from models.bundle import without_signature, write_bundle

        from .updates import slots

        signature = bundle.manifest.get("signature") or {}
        offered = slots.InstalledBundle(
            version=str(bundle.version),
            digest=bundle.digest,
            signed_by=signature.get("key_id"),
            release=bundle.release,
            file=f"{state.free}-{bundle.digest[:16]}.zip",
        )
        after = slots.installed(state, offered)
        running = after.running
        if running is None or running.digest != bundle.digest:
            raise SlotError(self.folder, "holds no slot for the bundle", "remove the folder")
        self._file.tidy(state)
        write_bundle(without_signature(bundle), self.folder / running.file)
        self._file.write(state, after)
        return running

    def _try_to_change(self, decide: Callable[[SlotState], SlotState]) -> SlotState | None:
        """Change the state; None where the folder cannot be made, locked, read or written."""
        try:
            self._file.make_folder()
            with self._file.locked():
                before = self.state()
                after = decide(before)
                self._file.write(before, after)
                return after
        except (OSError, SlotError) as error:
            _warn("the record of bundles stays as it was: %s", error)
            return None

    def _unwritable(self, error: OSError) -> SlotError:
        what = f"cannot be written: {error.strerror}"
        return SlotError(self.folder, what, "check the folder and the disk")


def _warn(message: str, *facts: object) -> None:
    # Predicting once needs no log, which takes half a megabyte to load.
    import logging

    logging.getLogger(__name__).warning(message, *facts)


def _what(error: BundleError | SlotError) -> str:
    """Return what went wrong, without where and without the remedy."""
    return str(error).removeprefix(f"{error.where}: ").partition("; ")[0]


def _at(now: datetime | None) -> str:
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
