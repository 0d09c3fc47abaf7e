"""The SuperLink's Control API as an operator of this deployment uses it: nodes and runs.

Flower's own client and messages: what `flwr supernode` and `flwr run` send, without a process for
each of ten thousand keys, and with the bundle that is pinned in the place of one made on the way.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx
from cryptography.hazmat.primitives import serialization
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from .errors import DeploymentRefusedError, ServingError
from .node_registry import NodeState, RegisteredNode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .place import Deployment

_GONE = "unregistered"


@dataclass(frozen=True, slots=True)
class FlowerRun:
    """How Flower says that a run stands.

    Attributes:
        run_id: by which Flower knows it.
        status: `pending`, `starting`, `running` or `finished`.
        sub_status: of a finished one: `completed`, `failed` or `stopped`.
        details: why it failed.
    """

    run_id: int
    status: str
    sub_status: str
    details: str

    @property
    def is_over(self) -> bool:
        """Whether its process has ended."""
        return self.status == "finished"


@dataclass(frozen=True, slots=True)
class ControlApi:
    """A SuperLink that answers operators."""

    _client: ControlHttpClient
    _where: str

    def nodes(self) -> tuple[RegisteredNode, ...]:
        """Return the nodes whose keys are registered now."""
        with self._named_refusals("list nodes"):
            answer = self._client.ListNodes(ListNodesRequest())
        return tuple(
            RegisteredNode(
                node_id=int(node.node_id),
                public_key=bytes(node.public_key),
                name=str(node.name),
                state=self._state(str(node.status)),
            )
            for node in answer.nodes_info
            if node.status != _GONE
        )

    def register(self, public_key: bytes, *, name: str) -> int:
        """Let a key in, and return the number of its node.

        Args:
            public_key: PEM, SubjectPublicKeyInfo.
            name: of the device.
        """
        with self._named_refusals(f"register {name}"):
            request = RegisterNodeRequest(public_key=public_key, name=name)
            return int(self._client.RegisterNode(request).node_id)

    def unregister(self, node_id: int) -> None:
        """Shut a node out; what it calls from now on is answered with 401."""
        with self._named_refusals(f"unregister node {node_id}"):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start_run(
        self, bundle: bytes, *, sha256: str, said: Mapping[str, str | int | float]
    ) -> int:
        """Have SuperExec start a run of a bundle, and return the number by which Flower knows it.

        Args:
            bundle: the app.
            sha256: of it, hex.
            said: keys of the run's configuration that differ from the bundle's.
        """
        with self._named_refusals("start a run"):
            answer = self._client.StartRun(
                StartRunRequest(
                    fab=fab_to_proto(Fab(sha256, bundle, {})),
                    override_config=user_config_to_proto(dict(said)),
                )
            )
        if not answer.HasField("run_id"):
            what = "did not take the app bundle"
            raise DeploymentRefusedError(self._where, what, "see logs/superlink.log")
        return int(answer.run_id)

    def stop_run(self, run_id: int) -> None:
        """Have a run's process end."""
        with self._named_refusals(f"stop run {run_id}"):
            self._client.StopRun(StopRunRequest(run_id=run_id))

    def run(self, run_id: int) -> FlowerRun:
        """Return how a run stands."""
        with self._named_refusals(f"look at run {run_id}"):
            answer = self._client.ListRuns(ListRunsRequest(run_id=run_id))
        status = answer.run_dict[run_id].status
        return FlowerRun(run_id, str(status.status), str(status.sub_status), str(status.details))

    def _state(self, status: str) -> NodeState:
        try:
            return NodeState(status)
        except ValueError:
            what = f"says that a node is {status!r}, which this fedcell does not know"
            raise ServingError(self._where, what, 'pip install "fedcell[train]"') from None

    @contextmanager
    def _named_refusals(self, what: str) -> Iterator[None]:
        """Say in one line what the SuperLink refused, or that it cannot be reached.

        Raises:
            ServingError: it does not answer.
            DeploymentRefusedError: it refuses.
        """
        try:
            yield
        except httpx.TransportError as error:
            said = str(error) or type(error).__name__
            remedy = "see that 'fedcell rounds serve' runs there"
            raise ServingError(self._where, f"no answer ({said})", remedy) from None
        except ValueError as error:
            remedy = "see what listens there"
            raise ServingError(self._where, f"no answer of Flower's ({error})", remedy) from None
        except httpx.HTTPStatusError as error:
            found = FlowerError.from_json(error.response.text)
            why = f"{error.response.status_code}" if found is None else str(found.message)
            remedy = "see logs/superlink.log in the deployment's folder"
            raise DeploymentRefusedError(
                self._where, f"refused to {what} ({why})", remedy
            ) from None


@contextmanager
def control_api(deployment: Deployment) -> Iterator[ControlApi]:
    """Open the Control API of a deployment that runs here.

    Raises:
        ServingError: the deployment's authorities cannot be read.
    """
    try:
        authorities = deployment.inner_authority.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        remedy = f"write it anew: fedcell rounds deployment {deployment.folder}"
        raise ServingError(deployment.inner_authority, what, remedy) from None
    client = ControlHttpClient.from_server_address(
        deployment.inner_address,
        False,
        authorities,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield ControlApi(client, f"SuperLink at {deployment.inner_address}")
    finally:
        client.close()


@lru_cache(maxsize=100_000)
def node_key(openssh: str) -> bytes:
    """Return a SuperNode's public key as Flower keeps it.

    Args:
        openssh: as the authority keeps it, on P-384.

    Returns:
        PEM, SubjectPublicKeyInfo.
    """
    return serialization.load_ssh_public_key(openssh.encode("ascii")).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
