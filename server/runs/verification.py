"""Checks a run's record against what is here: digests, ledger, counts, ε; and names what differs.

All of it can be done without the stream's key. What needs the key, or the devices, is named as not
verifiable: nobody can make noise again whose key came from the operating system's entropy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from privacy import StreamPolicy
from privacy.ledger import entries_of_stream

from ..privacy_home.privacy_errors import HomeBrokenError, HomeMissingError, StreamRefusedError
from ..privacy_home.privacy_ledger import read_home
from ..streams.release_witness import weights_digest
from ..streams.stream_files import read_checkpoint
from .outcome import START_ROUND
from .replay_record import json_digest, platform_here, versions_here
from .report_layout import ledger_epsilon
from .run_files import START_FILE, WEIGHTS_FILE
from .run_parts import parts_of
from .weights_file import read_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from privacy import LedgerEntry

OF_REAL_ENTROPY: Final = (
    "the weights of each round: the key of their noise is secret, and destroyed at the run's end",
    "the devices' updates: only their sum with noise ever left",
)
"""What nobody can verify of a run with real noise."""
BOUND_BY_NOTHING: Final = (
    (
        "configuration, start weights and fleet dataset against the ledger: their digests stand in "
        "the same run.json, which whoever may write can change together; the ledger binds policy, "
        "counts and noise of each step alone"
    ),
)
"""What a record says of itself, of any run: keep run.json's own digest elsewhere to bind it."""


class Verdict(StrEnum):
    """What came of one check."""

    SAME = "same"
    DIFFERS = "differs"
    UNKNOWN = "not_verifiable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was compared.

    Attributes:
        name: of it.
        verdict: what came of it.
        said: what the record has, or why nothing could be compared.
        found: what is here.
    """

    name: str
    verdict: Verdict
    said: str = ""
    found: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the check as plain fields."""
        return {name: str(getattr(self, name)) for name in self.__dataclass_fields__}


def compared(name: str, said: object, found: object) -> Check:
    """Compare one value of the record with what is here."""
    if said is None or said == "":
        return Check(name=name, verdict=Verdict.UNKNOWN, said="the run did not note it")
    verdict = Verdict.SAME if said == found else Verdict.DIFFERS
    return Check(name=name, verdict=verdict, said=str(said), found=str(found))


def first_difference(checks: Sequence[Check]) -> Check | None:
    """Return the first check that found something else; None where all agree."""
    return next((check for check in checks if check.verdict is Verdict.DIFFERS), None)


def verify_record(
    folder: Path, report: Mapping[str, Any], *, home: Path, fleet_sha256: str | None
) -> list[Check]:
    """Check all that a run's record says of files, counts and ε.

    Args:
        folder: of the run.
        report: its `run.json`.
        home: privacy home that the run charges.
        fleet_sha256: of the fleet dataset that is here; None where none was given.
    """
    record = report.get("record", {})
    return [
        *_of_plan(folder, report, record, fleet_sha256=fleet_sha256),
        *_of_parts(report),
        *_of_rounds(report),
        *_of_ledger(report, home),
        *_of_weights(folder, report, record),
    ]


def version_notes(report: Mapping[str, Any]) -> list[str]:
    """Say which versions and machines differ here from those that ran each part of a run.

    The last digit may differ then, too.
    """
    try:
        parts = parts_of(report)
    except (KeyError, TypeError, ValueError):
        return []
    here = {**versions_here(), **platform_here()}
    notes = []
    for part, after in zip(parts, (*parts[1:], None), strict=True):
        upto = len(report["rounds"]) if after is None else after.from_round - 1
        which = f" (rounds {part.from_round} to {upto})" if len(parts) > 1 else ""
        notes += [
            f"{name} {said} then{which}, {here.get(name, 'not installed')} here"
            for name, said in {**part.versions, **part.platform}.items()
            if here.get(name) != said
        ]
    return notes


def entries_of(report: Mapping[str, Any], home: Path) -> tuple[LedgerEntry, ...]:
    """Return the ledger's entries of a run, verified.

    Raises:
        HomeMissingError: there is no ledger.
        HomeBrokenError: the chain does not verify.
    """
    return entries_of_stream(read_home(home), report["config"]["stream"])


def _of_plan(
    folder: Path,
    report: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    fleet_sha256: str | None,
) -> Iterator[Check]:
    fleet = compared("fleet dataset", record.get("fleet_sha256"), fleet_sha256)
    if fleet_sha256 is None:
        fleet = Check(name=fleet.name, verdict=Verdict.UNKNOWN, said="no fleet was given")
    yield fleet
    yield compared("configuration", record.get("config_sha256"), json_digest(report["config"]))
    policy = report["privacy"].get("policy")
    if policy is not None:
        digest = StreamPolicy.from_json(policy).digest
        yield compared("policy", report["privacy"]["policy_digest"], digest)
    yield compared("start weights", record.get("start_sha256"), _digest_in(folder / START_FILE))


def _of_parts(report: Mapping[str, Any]) -> Iterator[Check]:
    """Check that each round is in one part: the first begins at 1, and each after the one before.

    A part at the end may have come to no round.
    """
    try:
        begins = [part.from_round for part in parts_of(report)]
    except (KeyError, TypeError, ValueError) as error:
        found = f"cannot be read ({error!r})"
        yield Check(name="parts of the run", verdict=Verdict.DIFFERS, said="listed", found=found)
        return
    in_order = begins[0] == 1 and begins == sorted(set(begins))
    if not in_order or begins[-1] > len(report["rounds"]) + 1:
        said = f"from 1 to {len(report['rounds'])}, in order"
        yield compared("parts of the run", said, str(begins))


def _of_rounds(report: Mapping[str, Any]) -> Iterator[Check]:
    rounds, config = report["rounds"], report["config"]
    found = [one["index"] for one in rounds]
    yield compared("order of rounds", list(range(len(rounds))), found)
    most = config["cohort_size"]
    policy = report["privacy"].get("policy")
    least = most if policy is None else policy["privacy"]["min_cohort_size"]
    for one in rounds:
        number = one["index"] + 1
        if not least <= one["invited"] <= most:
            yield compared(f"round {number}: invited", f"{least} to {most}", one["invited"])
        if not 0 <= one["replied"] <= one["invited"]:
            yield compared(f"round {number}: replied", f"0 to {one['invited']}", one["replied"])


def _of_ledger(report: Mapping[str, Any], home: Path) -> Iterator[Check]:
    try:
        everything = read_home(home)
    except HomeMissingError:
        yield Check(name="ledger", verdict=Verdict.UNKNOWN, said=f"there is none in {home}")
        return
    except HomeBrokenError as error:
        yield Check(name="ledger chain", verdict=Verdict.DIFFERS, said="whole", found=str(error))
        return
    yield Check(name="ledger chain", verdict=Verdict.SAME, said=f"{len(everything)} entries")
    rounds, config = report["rounds"], report["config"]
    mine = entries_of_stream(everything, config["stream"])
    yield compared("ledger entries of the run", len(rounds), len(mine))
    for one, entry in zip(rounds, mine, strict=False):
        number, event = one["index"] + 1, entry.fields["event"]
        if one.get("ledger_hash"):
            yield compared(f"round {number}: ledger entry", one["ledger_hash"], entry.hash)
        for name, said in (
            ("cohort_size", config["cohort_size"]),
            ("noise_multiplier", report["privacy"]["noise_multiplier"]),
            ("most_participations", one["most_participations"]),
        ):
            if event.get(name) != said:
                yield compared(f"round {number}: {name} of its entry", said, event.get(name))
        yield from _of_epsilon(one, entry, everything, report)


def _of_epsilon(
    one: Mapping[str, Any],
    entry: LedgerEntry,
    everything: Sequence[LedgerEntry],
    report: Mapping[str, Any],
) -> Iterator[Check]:
    stream, delta = report["config"]["stream"], report["privacy"]["delta"]
    said = one["epsilon_release"]
    found = ledger_epsilon(everything[: entry.index + 1], stream=stream, delta=delta)
    # A run may state more than its ledger, where devices said so of their own; never less.
    agrees = said is None or (found is not None and said >= found * (1 - 1e-9))
    if not agrees:
        yield Check(
            name=f"round {one['index'] + 1}: ε at δ = {delta:g}",
            verdict=Verdict.DIFFERS,
            said=str(said),
            found=str(found),
        )


def _of_weights(
    folder: Path, report: Mapping[str, Any], record: Mapping[str, Any]
) -> Iterator[Check]:
    end = _digest_in(folder / WEIGHTS_FILE)
    yield compared("weights at the end", record.get("end_sha256"), end)
    rounds, number = report["rounds"], report.get("leaves_round")
    if number is not None and record.get("end_sha256"):
        released = {one["index"] + 1: one.get("weights_sha256") for one in rounds}
        said = record.get("start_sha256") if number == START_ROUND else released.get(number)
        yield compared(f"weights that leave: those of round {number}", said, end)
    if not rounds or not rounds[-1].get("weights_sha256"):
        return
    name = f"round {rounds[-1]['index'] + 1}: weights of the checkpoint"
    try:
        checkpoint = read_checkpoint(folder)
    except StreamRefusedError:
        yield Check(name=name, verdict=Verdict.UNKNOWN, said="there is no checkpoint here")
        return
    yield compared(name, rounds[-1]["weights_sha256"], weights_digest(checkpoint.state.weights))


def _digest_in(path: Path) -> str | None:
    try:
        return weights_digest(read_weights(path))
    except (OSError, ValueError):
        return None
