"""Errors of contracts and artefacts."""


class ModelsError(Exception):
    """Root of the errors that `models` raises.

    Attributes:
        exit_code: the process exit code a command ends with when this error reaches it.
    """

    exit_code = 3


class DatasetError(ModelsError):
    """A fleet dataset, cycling file or predictions table cannot be used as it is.

    Attributes:
        where: the file or folder.
    """

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


class PlaceRefusedError(DatasetError):
    """A file cannot be written where it was said to be; what is there stays as it is."""

    exit_code = 6


class BundleError(ModelsError):
    """A model bundle is truncated, altered or not for this client; nothing was installed.

    Attributes:
        where: the file or folder.
        reason: a short code, as a device reports it.
        version: what the bundle calls itself, where that could be read.
    """

    exit_code = 5
    default_reason = "altered"

    def __init__(
        self, where: object, what: str, remedy: str, *, reason: str = "", version: str = ""
    ) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        self.reason = reason or self.default_reason
        self.version = version
        super().__init__(f"{where}: {what}; {remedy}")


class ArtefactMissingError(BundleError):
    """There is no bundle or key file where one was said to be."""

    exit_code = 4
    default_reason = "missing"


class UnsupportedSpecError(BundleError):
    """The bundle was trained on a feature specification that this client does not compute."""

    default_reason = "unsupported_spec"
