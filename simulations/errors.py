"""Errors of simulated fleets and rounds."""


class SimulationsError(Exception):
    """Root of the errors that `simulations` raises.

    Attributes:
        exit_code: the process exit code a command ends with when this error reaches it.
    """

    exit_code = 3


class DiskTooSmallError(SimulationsError):
    """What was asked for does not fit the disk; nothing was written."""

    exit_code = 6


class ReleaseError(SimulationsError):
    """Something for a release cannot be made.

    Attributes:
        where: the file, folder or platform.
    """

    exit_code = 6

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")
