"""Errors of a deployment; each is one line that says where, what and what to do."""

from __future__ import annotations

from ..errors import ServerError


class DeploymentError(ServerError):
    """A deployment's folder cannot be used as it is.

    Attributes:
        where: the folder, or the file in it.
    """

    exit_code = 3

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Say where, what is wrong and what to do."""
        self.where = str(where)
        super().__init__(f"{where}: {what}; {remedy}")


class DeploymentMissingError(DeploymentError):
    """There is no deployment here, or a part that it needs is not installed."""

    exit_code = 4


class DeploymentRefusedError(DeploymentError):
    """A certificate, key, bundle or run cannot be trusted as it is."""

    exit_code = 5


class ServingError(DeploymentError):
    """Something outside keeps the deployment from serving: a port, a process, another server."""

    exit_code = 6
