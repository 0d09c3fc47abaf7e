"""Records one message of each type, and a signed notice, in schema version 1.

Run it only to add types: python -m tests.golden.make_wire_messages. A file that is there is never
overwritten: what devices in the field have sent must load for ever.
"""

from __future__ import annotations

from pathlib import Path

from models.wire.envelope import SigningKey, sign_payload
from models.wire.messages import encode
from tests.support.wire_messages import announcement, configuration, notice, one_of_each

FOLDER = Path(__file__).parent / "messages"
KEY_BYTES = bytes(range(32))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    recorded = {f"{message.TYPE}_v1.json": encode(message) for message in one_of_each()}
    recorded["signed_notice_v1.json"] = sign_payload(
        encode(notice()), SigningKey.from_bytes(KEY_BYTES)
    )
    recorded["configuration_ring_v1.json"] = encode(configuration(ring="canary"))
    recorded["release_v1.json"] = encode(announcement())
    recorded["signed_release_v1.json"] = sign_payload(
        encode(announcement()), SigningKey.from_bytes(KEY_BYTES)
    )
    for name, payload in recorded.items():
        path = FOLDER / name
        if not path.exists():
            path.write_bytes(payload)


if __name__ == "__main__":
    main()
