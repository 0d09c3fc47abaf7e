"""Write `stream_v1/`: a stream as the code before sums were bound to noise left it.

Run with that code: `python tests/golden/make_stream.py FOLDER`. The stream was killed after its
second release and before its checkpoint. `released.json` holds what left, as hexadecimal floats.
"""

import json
import sys
from pathlib import Path

from privacy import OperatingSystemNoise
from server.privacy_home.privacy_ledger import open_home
from server.streams.stream_state import begin_stream
from server.streams.stream_terms import OperatingSystemKeys
from tests.support.stream_crashes import DEVICES, NOW, start, terms_of, total_of


def main(folder: Path) -> None:
    """Release two steps, and die within the second."""
    folder.mkdir(exist_ok=True)
    stream = begin_stream(
        folder,
        open_home(folder),
        terms_of("stream", 6),
        start=start(),
        keys=OperatingSystemKeys(),
        source=OperatingSystemNoise(),
    )
    released = []
    for index in range(2):
        cohort = [3 * index + number for number in range(3)]
        stream.invite(device_ids=DEVICES, choose=lambda _, cohort=cohort: cohort)
        stream.commit(total_of(index))
        stream.charge(NOW)
        released.append([value.hex() for value in stream.release().tolist()])
        if index == 0:
            stream.checkpoint(start())
    (folder / "released.json").write_text(json.dumps(released) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
