"""Records a notice signed and sealed to a fixed key, in layout 1.

Run it only to add layouts: python -m tests.golden.make_sealed_notice. Sealing draws a key anew each
time, so the file is made once and never overwritten: it must open for ever.
"""

from __future__ import annotations

from pathlib import Path

from models.wire.envelope import SigningKey, sign_payload
from models.wire.messages import encode
from models.wire.sealing import OpeningKey, padded, seal_envelope
from models.wire.topics import Down, down
from tests.support.wire_messages import DEVICE, notice

FILE = Path(__file__).parent / "messages" / "sealed_notice_v1.bin"
TOPIC = down(DEVICE, Down.NOTIFY)
SERVER_KEY_BYTES = bytes(range(32))
DEVICE_KEY_BYTES = bytes(range(64, 96))


def main() -> None:
    if FILE.exists():
        return
    envelope = sign_payload(padded(encode(notice())), SigningKey.from_bytes(SERVER_KEY_BYTES))
    key = OpeningKey.from_bytes(DEVICE_KEY_BYTES).seal_key
    FILE.write_bytes(seal_envelope(envelope, key, topic=TOPIC))


if __name__ == "__main__":
    main()
