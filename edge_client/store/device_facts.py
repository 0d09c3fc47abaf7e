"""The named values of a store: the device's profile, its pack, and the owner's choices."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from models.telemetry import CAUSES, DeviceId, DeviceProfile

from .access import named_errors
from .row_cipher import believed
from .size_limit import LEAST_STORE_BYTES, make_shrinkable
from .sqlite_file import StoreFile

if TYPE_CHECKING:
    from models.featurize import PackReferences
    from models.labels import OwnerAnswers
    from models.quiet_hours import QuietHours

DEFAULT_RETENTION_DAYS = 730

_FAILURES = "owner_failures"
_NOT_READ: Any = object()


class DeviceFacts(StoreFile):
    """The part of a store that knows whose it is.

    Profile and limits are read once for each opening.

    Args:
        path: an existing store.
        key: as for `StoreFile`.
    """

    _profile: DeviceProfile | None
    _retention_days: int | None
    _max_store_bytes: int | None

    @property
    def profile(self) -> DeviceProfile:
        """The device that this store belongs to."""
        if self._profile is None:
            with believed(self.path, "fact"):
                self._profile = profile_of(self.fact("profile"))
        return self._profile

    @property
    def retention_days(self) -> int:
        """Readings older than this leave the ring, days."""
        if self._retention_days is None:
            with believed(self.path, "fact"):
                self._retention_days = int(self.fact("retention_days"))
        return self._retention_days

    @property
    def max_store_bytes(self) -> int | None:
        """Size that the file stays below, None where only age limits it."""
        if self._max_store_bytes is _NOT_READ:
            self._max_store_bytes = self.fact("max_store_bytes")
        return self._max_store_bytes

    def set_max_store_bytes(self, max_store_bytes: int | None) -> None:
        """Keep another limit; readings leave at once where the file is larger.

        Processes that have the store open go by the former limit until they open it again.

        Args:
            max_store_bytes: None limits by age alone.

        Raises:
            ValueError: the limit is below `LEAST_STORE_BYTES`.
            StoreBusyError: the store is held by another process.
        """
        checked = checked_limit(max_store_bytes)
        if checked is not None:
            with named_errors(self.path):
                make_shrinkable(self._connection)
        self._max_store_bytes = checked
        self.keep_fact("max_store_bytes", checked)
        self.keep_profile_copy()

    def references(self) -> PackReferences | None:
        """Return the references of the pack in use, None before the first were kept."""
        from models.featurize import PackReferences

        value = self.fact("pack_references")
        if value is None:
            return None
        with believed(self.path, "fact"):
            known: dict[str, Any] = {k: math.nan if v is None else v for k, v in value.items()}
            return PackReferences(**known)

    def keep_references(self, references: PackReferences) -> None:
        """Keep the pack's references for life: the ring will lose the readings behind them.

        They are told anew with the next day: a process that holds the store is waited for briefly.

        Raises:
            StoreBusyError: the disk refuses, or another process holds the store.
        """
        value = {
            name: None if math.isnan(value) else value for name, value in asdict(references).items()
        }
        if value != self.fact("pack_references"):
            with self.waiting_briefly():
                self.keep_fact("pack_references", value)

    @property
    def language(self) -> str:
        """The language in which the owner reads."""
        return str(self.fact("language"))

    def set_language(self, language: str) -> None:
        """Keep the owner's language, one of `LANGUAGES`."""
        self.keep_fact("language", known_language(language))
        self.keep_profile_copy()

    @property
    def quiet_hours(self) -> QuietHours | None:
        """The owner's quiet hours, None where there are none."""
        from models.quiet_hours import QuietHours

        value = self.fact("quiet_hours")
        return None if value is None else QuietHours.parse(value["span"], value["zone"])

    def set_quiet_hours(self, quiet_hours: QuietHours | None) -> None:
        """Keep the owner's quiet hours, or remove them."""
        self.keep_fact("quiet_hours", quiet_hours_fact(quiet_hours))
        self.keep_profile_copy()

    def keep_failure(self, *, failed_at: datetime, cause: str | None = None, now: datetime) -> None:
        """Keep the owner's word that the battery failed; it becomes a label, and never leaves.

        Args:
            failed_at: when, by the owner's word.
            cause: one of `CAUSES`, None = the owner cannot tell.
            now: the device's time.

        Raises:
            ValueError: no cause has this name, or the moment lies ahead or before manufacture.
        """
        if cause is not None and cause not in CAUSES:
            raise ValueError(f"cause must be one of {', '.join(CAUSES)}, got {cause!r}")
        if not self.profile.manufactured_at <= failed_at <= now:
            raise ValueError(
                f"the battery failed between manufacture and now, {now.isoformat()},"
                f" got {failed_at.isoformat()}"
            )
        with self.transaction():
            said = self.fact(_FAILURES) or []
            self.keep_fact(_FAILURES, [*said, [int(failed_at.timestamp()), cause]])

    def take_failures_back(self) -> None:
        """Forget every word of the owner that the battery failed."""
        self.keep_fact(_FAILURES, [])

    def owner_answers(self) -> OwnerAnswers:
        """Return the owner's words that the battery failed, as labels take them.

        What the owner does with a notice is none: an alarm must not confirm itself.
        """
        import numpy as np

        from models.labels import OwnerAnswers

        said = self.fact(_FAILURES) or []
        causes = [-1 if cause is None else CAUSES.index(cause) for _, cause in said]
        return OwnerAnswers(
            device=np.zeros(len(said), np.intp),
            failed_at_s=np.array([at_s for at_s, _ in said], np.int64),
            cause=np.array(causes, np.int8),
        )

    def keep_profile_copy(self) -> None:
        """Write what a fresh store would begin with to the small file beside this one.

        Raises:
            StoreBusyError: the folder cannot be written; the store has what was to be copied.
        """
        from .profile_copy import write_profile_copy

        write_profile_copy(self.path, self.facts(), self._rows)

    def has_profile_copy(self) -> bool:
        """Whether the copy beside the store can be read, and is sealed as the store is."""
        from .profile_copy import read_profile_copy

        copy = read_profile_copy(self.path)
        return copy is not None and copy.facts(self._rows) is not None

    def _open(self) -> None:
        self._profile = self._retention_days = None
        self._max_store_bytes = _NOT_READ
        super()._open()

    def _after_migration(self) -> None:
        self.keep_profile_copy()


def first_facts(
    profile: DeviceProfile,
    *,
    language: str,
    quiet_hours: QuietHours | None,
    retention_days: int,
    max_store_bytes: int | None,
) -> dict[str, object]:
    """Return the named values of a new store.

    Raises:
        ValueError: a choice cannot be.
    """
    if retention_days < 1:
        raise ValueError(f"retention_days must be at least 1, got {retention_days}")
    made_at = profile.manufactured_at.astimezone(UTC).isoformat()
    return {
        "profile": asdict(profile) | {"manufactured_at": made_at},
        "language": known_language(language),
        "quiet_hours": quiet_hours_fact(quiet_hours),
        "retention_days": retention_days,
        "max_store_bytes": checked_limit(max_store_bytes),
    }


def profile_of(value: dict[str, Any]) -> DeviceProfile:
    """Make a profile of its named value.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    fields = dict(value)
    fields["device_id"] = DeviceId(fields["device_id"])
    fields["manufactured_at"] = datetime.fromisoformat(fields["manufactured_at"])
    return DeviceProfile(**fields)


def checked_limit(max_store_bytes: int | None) -> int | None:
    """Return a limit that a store can keep.

    Raises:
        ValueError: it is too small.
    """
    if max_store_bytes is not None and max_store_bytes < LEAST_STORE_BYTES:
        raise ValueError(
            f"max_store_bytes must be at least {LEAST_STORE_BYTES}, got {max_store_bytes}"
        )
    return max_store_bytes


def quiet_hours_fact(quiet_hours: QuietHours | None) -> dict[str, str] | None:
    """Return quiet hours as a named value."""
    if quiet_hours is None:
        return None
    return {"span": quiet_hours.span(), "zone": quiet_hours.zone}


def known_language(language: str) -> str:
    """Return a language that wordings exist for.

    Raises:
        ValueError: there are none for it.
    """
    from ..wording import LANGUAGES

    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {LANGUAGES}, got {language!r}")
    return language
