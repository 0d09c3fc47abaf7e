"""Errors of the wire: messages that are not what they should be, and a broker that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelsError

if TYPE_CHECKING:
    from .link_settings import LinkSettings


class WireError(ModelsError):
    """A payload, topic or signature is not what the contract says; the message is not used.

    Attributes:
        reason: a short code for counters and the dead-letter table, such as `bad_field`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the code and say the detail."""
        self.reason = reason
        super().__init__(f"{reason}: {detail}")


class MessageTooLargeError(WireError):
    """A payload is larger than the contract allows; nothing was sent.

    Attributes:
        size: bytes of the payload.
        limit: bytes allowed.
    """

    def __init__(self, *, size: int, limit: int) -> None:
        """Keep both sizes."""
        self.size = size
        self.limit = limit
        super().__init__("oversize", f"{size} bytes, at most {limit} are allowed")


class SignatureError(WireError):
    """A signed payload does not verify, or its key is not trusted."""

    exit_code = 5


class SealError(WireError):
    """A sealed payload cannot be opened here, or a key is none that anything can be sealed to."""

    exit_code = 5


class LinkError(ModelsError):
    """The broker cannot be reached or refused; what was not sent stays with the caller.

    Attributes:
        host: the broker's address.
        port: its TCP port.
    """

    exit_code = 6

    def __init__(self, *, host: str, port: int, what: str, remedy: str) -> None:
        """Say where, what happened and what to do."""
        self.host = host
        self.port = port
        super().__init__(f"MQTT broker {host}:{port}: {what}; {remedy}")


class DeliverAgainError(ModelsError):
    """A handler could not keep a message (full disk, lost database): it must come again.

    Raised by handlers only. The link leaves the message unacknowledged and connects anew.
    """

    exit_code = 6


def words_of(error: OSError) -> str:
    """Say in a few words why a connection could not be made."""
    if isinstance(error, TimeoutError):
        return "nobody answers"
    text = error.strerror or str(error) or type(error).__name__
    return text[0].lower() + text[1:]


def remedy_of(error: OSError) -> str:
    """Say what to do where a broker could not be reached, or TLS was not agreed on."""
    if type(error).__name__ == "SSLCertVerificationError":
        return "name the broker as its certificate does, and check the authorities and the clock"
    if type(error).__module__ == "ssl":
        return "check that the port speaks TLS, and that the certificate is not over or revoked"
    if isinstance(error, FileNotFoundError):
        return "check the files of TLS"
    return "start one with 'fedcell server broker', or name the right host and port"


def silence_of(settings: LinkSettings) -> tuple[str, str]:
    """Say what it means that a broker hung up without a word, and what to do."""
    remedy = "check that an MQTT broker listens there and lets this one in"
    if settings.tls is None:
        return "it does not answer as an MQTT broker", remedy
    # A broker looks at a certificate after this side believes that TLS stands.
    what = "it hung up: it does not take this certificate, or is no MQTT broker"
    return what, "check that the certificate is of its fleet, not over and not revoked"
