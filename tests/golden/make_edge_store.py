"""Records a device's store as a release wrote it, with what it answers.

`store_v1.sqlite` and `store_v1.json` (its export) were written by the code of schema version 1,
the others by that of version 2, in the clear and sealed; `store_v2_checksums.sqlite` later, when
readings in the clear had got their checksums.
Run it only to add a later version: python -m tests.golden.make_edge_store. A file that is there is
never overwritten: what devices in the field have stored must load for ever.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.store.mailbox import Purpose, Traffic
from edge_client.store.profile_copy import copy_path
from edge_client.store.sqlite_file import SCHEMA_VERSION
from edge_client.telemetry_store import TelemetryStore
from models.featurize import PackReferences
from models.quiet_hours import QuietHours
from models.wire.messages import NoticeState
from tests.support.edge_devices import NOW, PROFILE, fading_life, reading

if TYPE_CHECKING:
    from edge_client.store.row_cipher import KeySource

FOLDER = Path(__file__).parent / "stores"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    name = f"store_v{SCHEMA_VERSION}"
    said = make(FOLDER / f"{name}.sqlite", key=None)
    if make(FOLDER / f"{name}_sealed.sqlite", key=golden_key) != said:
        raise RuntimeError(name)
    make(FOLDER / f"{name}_checksums.sqlite", key=None)
    if said is not None:
        (FOLDER / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n")


def golden_key() -> bytes:
    return bytes(range(32))


def make(path: Path, *, key: KeySource | None) -> dict[str, object] | None:
    """Make one store and return what it says; None where it is there."""
    if path.exists():
        return None
    with TelemetryStore.create(
        path,
        profile=PROFILE,
        language="de",
        quiet_hours=QuietHours(22, 7, "Europe/Berlin"),
        retention_days=400,
        key=key,
    ) as store:
        fill(store)
        store.keep_day_rows([(20_604, b"a day"), (20_605, b"another")])
        store.count_traffic([Traffic(20_605, "up", "summary", 2, 1_400)])
        said = store.export()
    copy_path(path).unlink()
    return said


def fill(store: TelemetryStore) -> None:
    refused = reading(NOW, usage_hours=-1.0)
    store.record_many([*fading_life(days=40), refused], now=NOW)
    store.record(reading(NOW - timedelta(days=3), usage_hours=2.5), now=NOW)
    store.keep_references(PackReferences(2950.0, 90.0, float("nan"), 1_700_000_000))
    for purpose in (Purpose.SUMMARIES, Purpose.NOTICES):
        store.set_consent(purpose, granted=True, now=NOW)
    store.set_consent(Purpose.TRAINING, granted=False, now=NOW)
    store.next_sequence("summary", now=NOW)
    store.put_out(Purpose.SUMMARIES, "fedcell/v1/device/device-1/up/summary", b'{"type":"summary"}')
    store.keep_notice("n-1", sequence=7, version=2, body='{"words": "für später"}', now=NOW)
    store.keep_notice("n-2", sequence=9, version=2, body="{}", now=NOW)
    store.set_notice_state("n-1", NoticeState.SHOWN)
    store.keep_failure(failed_at=NOW - timedelta(days=1), cause="swelling", now=NOW)


if __name__ == "__main__":
    main()
