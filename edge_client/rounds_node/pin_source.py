"""Where pins come from: the address at which nodes meet the SuperLink, a file, and what was kept.

A look at the address also tells, before Flower is loaded, whether anybody answers there, and
whether it is the fleet's.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.durable_file import write_durably
from models.wire.app_pin import APP_PIN_PATH
from models.wire.codec import MAX_PAYLOAD_BYTES
from models.wire.envelope import VerifyKey

from ..errors import SuperLinkUnknownError, SuperLinkUnreachableError
from ..provisioning.membership import JOIN_ANEW
from .pinning import newest_pin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.wire.app_pin import AppPin

TIMEOUT_S = 10.0
CLOCK_WORDS = ("not yet valid", "has expired")
"""Of a certificate: it may be the device's clock that is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinSource:
    """Where a node's pins come from.

    Attributes:
        host: of the SuperLink, as its certificate bears it.
        port: TCP port.
        authorities: PEM file of who may speak for it.
        kept: file of the newest pin that was seen.
        file: of a pin that came with the device, None for none.
        keys: that may sign pins, Ed25519 in hex, by key id.
    """

    host: str
    port: int
    authorities: Path
    kept: Path
    file: Path | None
    keys: Mapping[str, str]

    def look(self) -> bytes | None:
        """Fetch the pin that is handed out now, None where the address hands out none.

        Raises:
            SuperLinkUnknownError: who answers is not the fleet's.
            SuperLinkUnreachableError: nobody answers; asking again later is right.
        """
        where = f"{self.host}:{self.port}"
        try:
            context = ssl.create_default_context(cafile=str(self.authorities))
        except (OSError, ssl.SSLError):
            raise SuperLinkUnknownError(self.authorities, "cannot be read", JOIN_ANEW) from None
        connection = http.client.HTTPSConnection(
            self.host, self.port, timeout=TIMEOUT_S, context=context
        )
        try:
            connection.request("GET", APP_PIN_PATH)
            answer = connection.getresponse()
            content = answer.read(MAX_PAYLOAD_BYTES + 1)
        except ssl.SSLCertVerificationError as error:
            raise _unknown(where, str(error.verify_message)) from None
        except (OSError, http.client.HTTPException) as error:
            what = f"no answer: {str(error) or type(error).__name__}"
            raise SuperLinkUnreachableError(where, what, "check address and network") from None
        finally:
            connection.close()
        return content if answer.status == http.HTTPStatus.OK else None

    def newest(self, handed_out: bytes | None) -> AppPin | None:
        """Return the newest pin of all that are known, and keep it.

        Args:
            handed_out: as it was fetched just now, None for nothing.
        """
        trusted = {
            name: VerifyKey.from_bytes(bytes.fromhex(key)) for name, key in self.keys.items()
        }
        kept = _content(self.kept)
        told = [handed_out, kept, None if self.file is None else _content(self.file)]
        for envelope in [one for one in told if one is not None]:
            best = newest_pin([one for one in (envelope, kept) if one is not None], trusted)
            if best is not None and (kept is None or best != newest_pin([kept], trusted)):
                write_durably(self.kept, envelope)
                kept = envelope
        return None if kept is None else newest_pin([kept], trusted)


def _unknown(where: str, said: str) -> SuperLinkUnknownError | SuperLinkUnreachableError:
    if any(words in said for words in CLOCK_WORDS):
        remedy = "check this device's clock; else tell the operator"
        return SuperLinkUnreachableError(where, f"its certificate does not hold: {said}", remedy)
    what = f"is not known by an authority of the fleet: {said}"
    return SuperLinkUnknownError(where, what, "check the address; tell the operator")


def _content(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PAYLOAD_BYTES + 1)
    except OSError:
        return None
