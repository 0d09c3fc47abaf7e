"""Streams for audits: canaries that took part, ledgers of whole streams, and runs' folders."""

import json
from datetime import UTC, datetime

from privacy import CorrelatedRelease, UpdateGrid, next_entry
from server.audits.canary_audit import audit_stream, audited_policy
from server.audits.canary_streams import (
    honest_parts,
)
from server.streams.release_witness import WITNESS_FILE

CANARIES = 10_000
NOW = datetime(2027, 1, 1, tzinfo=UTC)


def finding_of(mu, parts=None, *, canaries=CANARIES, **shape):
    policy = audited_policy(mu, cohort_size=canaries, **shape)
    return audit_stream(policy, parts or honest_parts(), canaries=canaries)


def ledger_of(policy, *, steps, digest=None):
    """Entries of a stream that invites one device as often as it may."""
    privacy, entries = policy.privacy, []
    for index in range(steps):
        event = CorrelatedRelease(
            stream=policy.stream,
            index=index,
            noise_multiplier=privacy.noise_multiplier,
            clipping_norm=privacy.clipping_norm,
            cohort_size=policy.cohort_size,
            bands=privacy.bands,
            min_separation=privacy.min_separation,
            most_participations=min(
                index // privacy.min_separation + 1, privacy.max_participations
            ),
            policy_digest=digest or policy.digest,
        )
        last = entries[-1] if entries else None
        entries.append(next_entry(last, event, kind="stream", at=NOW))
    return entries


def run_folder(folder, policy, entries, *, told=None):
    """A run's folder that is its own privacy home, with the report that a run leaves."""
    folder.mkdir()
    lines = "".join(f"{entry.to_line()}\n" for entry in entries)
    (folder / "ledger.jsonl").write_text(lines, encoding="ascii")
    head = entries[-1].reference() if entries else None
    privacy = {"policy": policy.to_json(), "ledger_head": head} | (told or {})
    (folder / "run.json").write_text(json.dumps({"privacy": privacy}))
    seen = {entry.hash: "ab" * 32 for entry in entries}
    (folder / WITNESS_FILE).write_text(json.dumps(seen))
    return folder


def unnoised(self):
    grid = UpdateGrid(clipping_norm=self.terms.clipping_norm)
    return grid.restore(self._committed().total) / self.terms.cohort_size
