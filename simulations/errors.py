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
