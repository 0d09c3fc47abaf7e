"""Signed policies, tasks and receipts, as a server would send them to one device."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from edge_client.privacy.participation import Terms
from edge_client.store.mailbox import Purpose
from models.wire.envelope import SigningKey, sign_payload
from models.wire.rounds import LocalRecipe, ReleaseReceipt, RoundTask
from privacy import CorrelatedRelease, next_entry
from tests.support.edge_devices import NOW, new_store
from tests.support.stream_policies import stream_policy

if TYPE_CHECKING:
    from pathlib import Path

    from edge_client.telemetry_store import TelemetryStore
    from privacy import StreamPolicy

KEY = SigningKey.from_bytes(bytes(range(32)))
KEYS = {KEY.verify_key.key_id: KEY.verify_key.to_bytes()}
TERMS = Terms(policy_keys=KEYS)
POLICY = stream_policy(participations=3, separation=2, cohort_size=100)
PSEUDONYM = "0f" * 16


def signed(policy: StreamPolicy, *, key: SigningKey = KEY) -> str:
    """Return a policy's envelope."""
    return sign_payload(policy.to_bytes(), key).decode("ascii")


def signed_json(value: object, *, key: SigningKey = KEY) -> str:
    """Return the envelope of anything, as no honest server signs it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sign_payload(text.encode(), key).decode("ascii")


def recipe_of(policy: StreamPolicy) -> LocalRecipe:
    """Return the recipe that a policy prescribes."""
    record = policy.record
    return LocalRecipe(
        steps=record.steps,
        sampling_rate=record.sampling_rate,
        least_rows=record.least_rows,
        record_noise_multiplier=record.noise_multiplier,
        record_max_grad_norm=record.max_grad_norm,
    )


def task_of(policy: StreamPolicy = POLICY, /, *, index: int = 0, **changes: object) -> RoundTask:
    """Return the task of a step, with some of its constants changed."""
    task = RoundTask(
        stream=policy.stream,
        index=index,
        clipping_norm=policy.privacy.clipping_norm,
        cohort_size=policy.cohort_size,
        device_ids=("device-1",),
        recipe=recipe_of(policy),
        policy=signed(policy),
        pseudonyms=(PSEUDONYM,),
    )
    return replace(task, **changes)


def release_of(policy: StreamPolicy = POLICY, /, *, index: int = 0, **changes: object):
    """Return what an honest server's ledger holds of a step."""
    event = CorrelatedRelease(
        stream=policy.stream,
        index=index,
        noise_multiplier=policy.privacy.noise_multiplier,
        clipping_norm=policy.privacy.clipping_norm,
        cohort_size=policy.cohort_size,
        bands=policy.privacy.bands,
        min_separation=policy.privacy.min_separation,
        most_participations=index // policy.privacy.min_separation + 1,
        policy_digest=policy.digest,
    )
    return replace(event, **changes)


def receipt_of(event, *, index=None, kind="stream", key=KEY, forged=()) -> ReleaseReceipt:
    """Return the server's receipt for a step; `forged` are pairs of text to replace in its line."""
    line = next_entry(None, event, kind=kind, at=NOW + timedelta(hours=1)).to_line()
    for old, new in forged:
        line = line.replace(old, new)
    envelope = sign_payload(line.encode(), key).decode("ascii")
    step = event.index if index is None else index
    return ReleaseReceipt(stream=event.stream, index=step, entry=envelope)


def agreeing_store(folder: Path, **choices: object) -> TelemetryStore:
    """Make a store whose owner agrees to training; it has its ledger."""
    store = new_store(folder, **choices)
    store.set_consent(Purpose.TRAINING, granted=True, now=NOW)
    return store
