"""Records what a store keeps of a step behind a gateway: offered, answered, closed, counts.

Run it only to add forms: python -m tests.golden.make_kept_step. A file is never overwritten.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from edge_client.site_rounds.kept_step import Ending, KeptStep
from edge_client.site_rounds.time_left import Moment
from models.wire.rounds import LocalRecipe, RoundTask
from models.wire.site_rounds import CountOffer, RoundOffer

FILE = Path(__file__).parent / "kept_step_v1.json"
AT = Moment(
    boot="5e0f", elapsed_s=1234.5, wall_s=datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
)
GRANTED = datetime(2026, 11, 20, tzinfo=UTC)
SAID = {
    "grant": "an envelope",
    "device": "device-1",
    "material": "0d" * 32,
    "material_bytes": 11_000,
    "deadline_s": 600,
}
TASK = RoundTask(
    stream="s",
    index=7,
    clipping_norm=0.3,
    cohort_size=2_000,
    device_ids=("device-1",),
    recipe=LocalRecipe(proximal=0.5),
    pseudonyms=("0f" * 16,),
    has_norm_bit=True,
)
OFFERED = KeptStep(
    offer=RoundOffer(**SAID, task=TASK),
    gateway="gateway-1",
    seal_key="ab" * 32,
    granted=GRANTED,
    received=AT,
)
COUNTED = KeptStep(
    offer=CountOffer(**SAID, channel="metrics", index=3, cohort_size=500),
    gateway="gateway-1",
    seal_key="ab" * 32,
    granted=GRANTED,
    received=AT,
)
STEPS = {
    "offered": OFFERED,
    "answered": OFFERED.answered((b"\x02one", b"\x02two")),
    "closed": OFFERED.closed(Ending.RELEASED),
    "counted": COUNTED.answered((b"\x02",)),
}


def main() -> None:
    if FILE.exists():
        return
    plain = {name: step.to_plain() for name, step in STEPS.items()}
    FILE.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
