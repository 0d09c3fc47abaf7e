"""Errors of one device process; each is one line that says where, what and what to do."""


class EdgeError(Exception):
    """Root of the errors that `edge_client` raises.

    Attributes:
        exit_code: the process exit code a command ends with when this error reaches it.
    """

    exit_code = 3


class PlacedError(EdgeError):
    """Root of the errors that name a place.

    Attributes:
        where: the place.
    """

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


class StoreError(PlacedError):
    """The store's file cannot be used as it is; nothing was written to it.

    Attributes:
        where: the store's path.
    """


class StoreMissingError(StoreError):
    """There is no store yet: `fedcell-device init` makes it."""

    exit_code = 4


class StoreDamagedError(StoreError):
    """The store's content is not what was written to it; `store_recovery` sets it aside."""


class StoreForeignError(StoreError):
    """What is at the path is empty, no database, or another program's; it was left alone."""


class StoreKeyError(StoreError):
    """The key is missing, is the wrong one, or is given for a store that is not sealed."""

    exit_code = 4


class StoreBusyError(StoreError):
    """The disk refuses, is full, or another process holds the store; nothing was written."""

    exit_code = 6


class ReadingRefusedError(EdgeError):
    """A reading breaks a rule of `models.telemetry`; it was counted, not stored.

    Attributes:
        reason: the rule's name, as `TelemetryStore.refusals` counts it.
        what: what broke it, and what to do.
    """

    def __init__(self, reason: str, what: str) -> None:
        """Name the rule, what broke it and what to do."""
        self.reason, self.what = reason, what
        super().__init__(f"reading refused ({reason}): {what}")


class InputError(PlacedError):
    """A file or value given to a command cannot be read; nothing was stored of it.

    Attributes:
        where: the file, flag or line.
    """


class UsageError(InputError):
    """What was asked for on the command line does not fit together; nothing was done."""

    exit_code = 2


class InputMissingError(InputError):
    """A file given to a command is not there."""

    exit_code = 4


class ConsentMissingError(EdgeError):
    """The owner has not agreed to this purpose; nothing left the device.

    Attributes:
        purpose: the purpose that was not granted.
    """

    exit_code = 1

    def __init__(self, purpose: str) -> None:
        """Name the purpose and how the owner grants it."""
        self.purpose = purpose
        super().__init__(
            f"the owner has not agreed to {purpose}; fedcell-device consent grant {purpose}"
        )


class TaskRefusedError(EdgeError):
    """A training task is not for this device, or its owner does not agree; nothing was trained."""


class StepOverError(TaskRefusedError):
    """A step's time was over before it could be answered; nothing was debited, nothing leaves."""


class DeviceAwayError(EdgeError):
    """A device behind a node cannot be reached; it alone is missing, the others answer."""

    exit_code = 6


class NoticeRefusedError(EdgeError):
    """A message from the server is not genuine, not for this device, or too old; it was dropped.

    Attributes:
        reason: a short code, as the agent counts it.
    """

    exit_code = 5

    def __init__(self, reason: str, what: str) -> None:
        """Name the rule and what broke it."""
        self.reason = reason
        super().__init__(f"notice refused ({reason}): {what}")


class SlotError(PlacedError):
    """A place for bundles or keys on this device cannot be used; the device runs what it ran.

    Attributes:
        where: the folder or file.
    """

    exit_code = 5


class IdentityError(PlacedError):
    """The device's identity cannot be used; nothing was said in its name.

    Attributes:
        where: its file, or the store.
    """

    exit_code = 5


class CloneError(IdentityError):
    """Store or identity come from another device; what talks or trains refuses them."""

    def __init__(self, where: object, what: str) -> None:
        """Say where, and what was found."""
        self.where = str(where)
        EdgeError.__init__(self, f"{where}: {what}")


class StoppedError(EdgeError):
    """The server's signed configuration has stopped this; the owner can see it in `status`."""

    exit_code = 1

    def __init__(self, what: str) -> None:
        """Name what is stopped, and where to see it."""
        self.what = what
        super().__init__(
            f"{what} is stopped by the server's configuration; see fedcell-device status"
        )


class DownloadError(PlacedError):
    """A bundle could not be fetched; the device runs what it ran.

    Attributes:
        where: its address.
    """

    exit_code = 6


class ServerSilentError(EdgeError):
    """What the agent waited for did not come in time."""

    exit_code = 6


class SensorError(PlacedError):
    """A sensor gave no reading: the battery, its driver or the firmware's function failed.

    Attributes:
        where: the power supply, or the function.
    """

    exit_code = 6


class ServiceError(PlacedError):
    """A place to listen on cannot be used; nothing is served.

    Attributes:
        where: the path.
    """

    exit_code = 6


class LedgerError(PlacedError):
    """The device's privacy ledger cannot be relied on; nothing is trained or answered.

    Attributes:
        where: its file, or the place that knows its head.
        refusal: why, a value of `privacy.budget.Refusal`.
    """

    exit_code = 5

    def __init__(self, where: object, what: str, remedy: str, *, refusal: str) -> None:
        """Say where, what is wrong, what follows, and the code of it."""
        self.refusal = refusal
        super().__init__(where, what, remedy)


class LedgerUnwritableError(LedgerError):
    """The disk refuses what has to be written before anything leaves."""

    exit_code = 6

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        super().__init__(where, what, remedy, refusal="ledger_unwritable")


class ParticipationRefusedError(EdgeError):
    """A rule of the policy or of the ledger forbids a step; what leaves is a zero update.

    Attributes:
        refusal: which rule, a value of `privacy.budget.Refusal`.
    """

    exit_code = 1

    def __init__(self, refusal: str, what: str) -> None:
        """Name the rule, and what broke it."""
        self.refusal = refusal
        super().__init__(f"not taken part in ({refusal}): {what}")


class JoinError(PlacedError):
    """The device could not join its fleet or renew its certificate; what it was it still is.

    Attributes:
        where: the service, file or flag.
    """

    exit_code = 5


class JoinRefusedError(JoinError):
    """The enrolment service refused.

    Attributes:
        reason: its word for why.
    """

    def __init__(self, where: object, what: str, remedy: str, *, reason: str) -> None:
        """Say where, what the service said and what to do."""
        self.reason = reason
        super().__init__(where, what, remedy)


class ServiceUnreachableError(JoinError):
    """The enrolment service did not answer; asking again later is right."""

    exit_code = 6


class SuperLinkUnknownError(PlacedError):
    """Who answers where the SuperLink should be is not the fleet's; nothing was said there.

    Attributes:
        where: its address, or the file of authorities.
    """

    exit_code = 5


class SuperLinkUnreachableError(PlacedError):
    """The SuperLink does not answer; trying again later is right.

    Attributes:
        where: its address.
    """

    exit_code = 6


class NodeRefusedError(PlacedError):
    """The SuperLink does not let this device's node in; waiting does not mend that.

    Attributes:
        where: its address.
    """

    exit_code = 5


class FlowerError(PlacedError):
    """Flower is not installed, or not in a version that bundles can be held back from.

    Attributes:
        where: the library.
    """

    exit_code = 4


class GatewayError(PlacedError):
    """The gateway cannot stand for its site as things are; no device was asked.

    Attributes:
        where: the file.
    """

    exit_code = 5


class SiteUnreachableError(PlacedError):
    """The broker of a gateway's site does not answer, or refuses; asking again later is right.

    Attributes:
        where: the broker.
    """

    exit_code = 6
