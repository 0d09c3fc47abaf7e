"""Which of two slots a device runs: decisions alone, no files.

A new bundle goes into the slot that is not committed and is on trial until a report was made with
it. Every start during the trial is counted before the model is loaded; after `MAX_STARTS` starts
without a report the next one goes back to the committed slot, and the version that failed is not
tried again. Once committed, nothing goes back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

MAX_STARTS = 3
MAX_REMEMBERED = 16
MAX_TEXT = 200
SCHEMA = 2
"""Of the record; 1 had neither number nor checksum."""


class SlotName(StrEnum):
    """One of the two places for bundles."""

    A = "a"
    B = "b"


class RefusalReason(StrEnum):
    """Why a bundle was not taken up, or not kept."""

    ALTERED = "altered"
    TOO_LARGE = "too_large"
    UNTRUSTED = "untrusted"
    CLIENT_TOO_OLD = "client_too_old"
    UNSUPPORTED_SPEC = "unsupported_spec"
    STRUCTURE = "structure"
    LIMITS = "limits"
    LOAD = "load"
    GOLDEN = "golden"
    OLDER_RELEASE = "older_release"
    ROLLED_BACK_BEFORE = "rolled_back_before"
    NO_REPORT = "no_report"
    SLOT_DAMAGED = "slot_damaged"
    REPOSITORY = "repository"


class InstalledBundle(NamedTuple):
    """A bundle that passed every check and lies in a slot.

    Attributes:
        version: the model's version.
        digest: hex SHA-256 of the bundle.
        signed_by: id of the key that signed it, None where unsigned bundles were allowed.
        release: its number in the order of releases, None where it has none.
        file: name of its file in the folder of bundles.
    """

    version: str
    digest: str
    signed_by: str | None
    release: int | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The latest bundle that was refused or rolled back.

    Attributes:
        version: what the bundle calls itself; empty where that could not be read.
        reason: the rule that it broke.
        what: the same in words.
        at: when, ISO 8601, UTC.
    """

    version: str
    reason: str
    what: str
    at: str


class SlotState(NamedTuple):
    """All that a device remembers of its bundles.

    Attributes:
        committed: the slot that made a report; None runs the default bundle.
        trial: the slot that has yet to make one.
        starts: of the bundle on trial.
        a: what lies in slot a.
        b: what lies in slot b.
        least_release: the release that was committed last; an older one needs leave.
        rolled_back: versions that failed their trial, the latest last.
        refusal: the latest bundle that was refused or rolled back.
        committed_at: when the committed bundle was, ISO 8601, UTC; None where it is not known.
    """

    committed: SlotName | None = None
    trial: SlotName | None = None
    starts: int = 0
    a: InstalledBundle | None = None
    b: InstalledBundle | None = None
    least_release: int | None = None
    rolled_back: tuple[str, ...] = ()
    refusal: Refusal | None = None
    committed_at: str | None = None

    def content(self, slot: SlotName | None) -> InstalledBundle | None:
        """Return what lies in a slot; None is the default bundle's."""
        if slot is None:
            return None
        return self.a if slot is SlotName.A else self.b

    @property
    def running(self) -> InstalledBundle | None:
        """Return what the device runs: the bundle on trial, else the committed one."""
        return self.content(self.trial or self.committed)

    @property
    def free(self) -> SlotName:
        """Return the slot that the next bundle goes into: never the committed one."""
        return SlotName.B if self.committed is SlotName.A else SlotName.A

    @property
    def files(self) -> frozenset[str]:
        """Return the names of the files that the slots hold."""
        return frozenset(held.file for held in (self.a, self.b) if held is not None)


def why_not(
    state: SlotState,
    *,
    version: str,
    digest: str,
    release: int | None,
    allow_older: bool = False,
    allow_rolled_back: bool = False,
) -> RefusalReason | None:
    """Say why the history of this device forbids a bundle, None where it does not."""
    committed = state.content(state.committed)
    if committed is not None and committed.digest == digest:
        return None
    if version in state.rolled_back and not allow_rolled_back:
        return RefusalReason.ROLLED_BACK_BEFORE
    # A bundle of no release could be of any age: signatures do not expire.
    least = state.least_release
    is_older = least is not None and (release is None or release < least)
    return RefusalReason.OLDER_RELEASE if is_older and not allow_older else None


def installed(state: SlotState, bundle: InstalledBundle) -> SlotState:
    """Put a bundle on trial; one that is committed already ends any trial instead."""
    committed, trial = state.content(state.committed), state.content(state.trial)
    if committed is not None and committed.digest == bundle.digest:
        return _emptied(state, state.trial)._replace(trial=None, starts=0)
    if trial is not None and trial.digest == bundle.digest:
        return state
    kept = tuple(version for version in state.rolled_back if version != bundle.version)
    filled = _filled(state, state.free, bundle)
    return filled._replace(trial=state.free, starts=0, rolled_back=kept)


def started(state: SlotState, *, at: str) -> SlotState:
    """Count a start of the bundle on trial, or go back where it had its chances.

    Args:
        state: before the model is loaded.
        at: the moment, ISO 8601, UTC.
    """
    if state.trial is None:
        return state
    if state.starts < MAX_STARTS:
        return state._replace(starts=state.starts + 1)
    what = f"made no report in {state.starts} starts"
    return rolled_back(state, reason=RefusalReason.NO_REPORT, what=what, at=at)


def rolled_back(state: SlotState, *, reason: RefusalReason, what: str, at: str) -> SlotState:
    """End a trial: the device runs the committed slot, and does not try this version again.

    Raises:
        ValueError: no bundle is on trial; after a commit nothing goes back.
    """
    trial = state.content(state.trial)
    if trial is None:
        raise ValueError("no bundle is on trial, so none is rolled back")
    versions = tuple(version for version in state.rolled_back if version != trial.version)
    # Damage of a file says nothing of the version: it may be installed again.
    failed = reason is not RefusalReason.SLOT_DAMAGED
    remembered = (*versions, *((trial.version,) if failed else ()))[-MAX_REMEMBERED:]
    ended = _emptied(state, state.trial)._replace(trial=None, starts=0, rolled_back=remembered)
    return refused(ended, version=trial.version, reason=reason, what=what, at=at)


def committed(state: SlotState, *, at: str) -> SlotState:
    """Keep the bundle on trial for good; without one nothing changes."""
    trial = state.content(state.trial)
    if trial is None:
        return state
    return state._replace(
        committed=state.trial,
        committed_at=at,
        trial=None,
        starts=0,
        least_release=state.least_release if trial.release is None else trial.release,
    )


def refused(
    state: SlotState, *, version: str, reason: RefusalReason, what: str, at: str
) -> SlotState:
    """Remember that a bundle was refused; what the device runs stays as it is."""
    shown = " ".join(word for word in what.split() if word.isprintable())
    name = "".join(character for character in version if character.isprintable())
    return state._replace(refusal=Refusal(name[:MAX_TEXT], reason.value, shown[:MAX_TEXT], at))


def _filled(state: SlotState, slot: SlotName, bundle: InstalledBundle | None) -> SlotState:
    return state._replace(a=bundle) if slot is SlotName.A else state._replace(b=bundle)


def _emptied(state: SlotState, slot: SlotName | None) -> SlotState:
    return state if slot is None else _filled(state, slot, None)


def to_json(state: SlotState) -> dict[str, Any]:
    """Return a state as JSON holds it."""

    def held(bundle: InstalledBundle | None) -> dict[str, object] | None:
        return None if bundle is None else bundle._asdict()

    return {
        "schema": SCHEMA,
        "committed": state.committed,
        "trial": state.trial,
        "starts": state.starts,
        "a": held(state.a),
        "b": held(state.b),
        "least_release": state.least_release,
        "rolled_back": list(state.rolled_back),
        "refusal": None if state.refusal is None else asdict(state.refusal),
        "committed_at": state.committed_at,
    }


def from_json(content: Any) -> SlotState:
    """Read a state; fields that this version does not know are passed over.

    Raises:
        ValueError: it is no state, or one that names an empty slot.
        TypeError: a field is of another type.
        KeyError: a field is missing.
    """
    if content["schema"] not in range(1, SCHEMA + 1):
        raise ValueError(f"schema {content['schema']} is above {SCHEMA}")
    state = SlotState(
        committed=_slot(content["committed"]),
        trial=_slot(content["trial"]),
        starts=int(content["starts"]),
        a=_bundle(content["a"]),
        b=_bundle(content["b"]),
        least_release=_number(content.get("least_release")),
        rolled_back=tuple(map(str, content.get("rolled_back", ()))),
        refusal=_refusal(content.get("refusal")),
        committed_at=_text(content.get("committed_at")),
    )
    for slot in (state.committed, state.trial):
        if slot is not None and state.content(slot) is None:
            raise ValueError(f"slot {slot} is empty")
    if state.trial is not None and state.trial is state.committed:
        raise ValueError(f"slot {state.trial} is committed and on trial")
    return state


def of_earlier_record(record: Any) -> SlotState:
    """Read `current.json`, in which the first version named its one bundle.

    Raises:
        ValueError: it is no such record.
        TypeError: it is no such record.
        KeyError: a field is missing.
    """
    bundle = InstalledBundle(
        version=str(record["version"]),
        digest=str(record["digest"]),
        signed_by=_text(record["signed_by"]),
        file=f"{bytes.fromhex(record['digest']).hex()[:16]}.zip",
    )
    return SlotState(committed=SlotName.A, a=bundle)


def _slot(name: Any) -> SlotName | None:
    return None if name is None else SlotName(name)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _bundle(content: Any) -> InstalledBundle | None:
    if content is None:
        return None
    file = str(content["file"])
    if not file or "/" in file or file.startswith("."):
        raise ValueError(f"{file!r} is no file of a slot")
    return InstalledBundle(
        version=str(content["version"]),
        digest=str(content["digest"]),
        signed_by=_text(content["signed_by"]),
        release=_number(content["release"]),
        file=file,
    )


def _refusal(content: Any) -> Refusal | None:
    if content is None:
        return None
    return Refusal(
        version=str(content["version"]),
        reason=str(content["reason"]),
        what=str(content["what"]),
        at=str(content["at"]),
    )
