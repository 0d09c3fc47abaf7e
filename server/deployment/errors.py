"""Errors of a deployment; each is one line that says where, what and what to do."""

from __future__ import annotations

from ..errors import PlacedError


class DeploymentError(PlacedError):
    """A deployment's folder cannot be used as it is.

    Attributes:
        where: the folder, or the file in it.
    """

    exit_code = 3


class DeploymentMissingError(DeploymentError):
    """There is no deployment here, or a part that it needs is not installed."""

    exit_code = 4


class DeploymentRefusedError(DeploymentError):
    """A certificate, key, bundle or run cannot be trusted as it is."""

    exit_code = 5


class ServingError(DeploymentError):
    """Something outside keeps the deployment from serving: a port, a process, another server."""

    exit_code = 6
