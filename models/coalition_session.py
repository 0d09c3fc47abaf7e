"""Running one device's coalitions quickly: what is done feature by feature is done once.

Between the raw features and the first layer, the graph treats every feature alone. So it suffices
to take the device and the reference through that part, and to mix the two afterwards: only the
layers behind it run for every coalition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .numpy_backend import OPERATIONS, NumpySession

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURE_BY_FEATURE = frozenset(
    {"Abs", "Add", "Cast", "Clip", "Concat", "Div", "Exp", "IsNaN", "Log", "Max", "Min", "Mul"}
    | {"Neg", "Sign", "Softplus", "Sub", "Tanh", "Where"}
)
"""Operators that give the columns of their results from the same columns of what they take."""

_LAYERS = (OPERATIONS["Gemm"], OPERATIONS["MatMul"])


class CoalitionSession(NumpySession):
    """Runs coalitions of two rows for one output of a graph.

    Args:
        model_bytes: an ONNX file.
        output: which output is wanted.

    Raises:
        models.onnx_structure.StructureError: the graph is none that this product writes.
        ValueError: the part before its first layer does not treat every feature alone.
    """

    def __init__(self, model_bytes: bytes, output: str) -> None:
        super().__init__(model_bytes)
        self._wanted = self._plan((output,))
        steps = self._wanted.steps
        first = [number for number, step in enumerate(steps) if step.operation in _LAYERS]
        if not first:
            raise ValueError("the graph has no layer")
        self._before, self._behind = steps[: first[0]], steps[first[0] :]
        self._mixed_at = self._behind[0].arguments[0]
        self._last_taken: tuple[NDArray[np.bool_], NDArray[np.float64]] | None = None
        self._refuse_what_cannot_be_mixed()

    def run_coalitions(
        self,
        own: NDArray[np.float32],
        other: NDArray[np.float32],
        takes_own: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """Return the output for every row and coalition.

        Args:
            own: shape (n, n_features), the devices' raw values.
            other: shape (n, n_features), what they take where they do not take their own.
            takes_own: shape (n_coalitions, n_features), which features are the device's own.

        Returns:
            Shape (n · n_coalitions,), the coalitions of a row one after the other.
        """
        values = list(self._wanted.values)
        values[0] = np.concatenate([own, other])
        with np.errstate(all="ignore"):
            for step in self._before:
                values[step.result] = step.operation(*[values[place] for place in step.arguments])
            layer, *others = self._behind
            view, weights, *bias = (values[place] for place in layer.arguments)
            if view is None or weights is None:
                raise ValueError("the graph has no view of its features")
            own_view, other_view = view[: len(own)], view[len(own) :]
            # What the first layer makes of a mixture is linear in what each feature adds to it.
            added = np.matmul(
                self._taken(takes_own, view.shape[1]),
                np.multiply(np.subtract(own_view, other_view)[:, :, None], weights),
            )
            made_of_other = layer.operation(other_view, weights, *bias)
            values[layer.result] = (added + made_of_other[:, None]).reshape(-1, weights.shape[1])
            for step in others:
                values[step.result] = step.operation(*[values[place] for place in step.arguments])
                for place in step.ended:
                    values[place] = None
        made: NDArray[np.float32] = values[self._wanted.results[0]]  # type: ignore[assignment]
        return made

    def _taken(self, takes_own: NDArray[np.bool_], width: int) -> NDArray[np.float64]:
        """Return which columns of the view are a device's own, as numbers; the last are kept."""
        if self._last_taken is None or self._last_taken[0] is not takes_own:
            columns = np.tile(takes_own, (1, width // takes_own.shape[1]))
            self._last_taken = (takes_own, columns.astype(np.float64))
        return self._last_taken[1]

    def _refuse_what_cannot_be_mixed(self) -> None:
        made_by = {node.outputs[0]: node for node in self._structure.nodes}
        view = self._structure.nodes[0]
        for node in self._structure.nodes:
            if node.operator in {"Gemm", "MatMul"} and node.inputs[0] not in self._constants:
                view = made_by[node.inputs[0]]
                break
        waiting, seen = [view], set()
        while waiting:
            node = waiting.pop()
            if node.operator not in FEATURE_BY_FEATURE:
                raise ValueError(f"{node.operator} does not treat every feature alone")
            seen.add(node.outputs[0])
            waiting += [made_by[name] for name in node.inputs if name in made_by.keys() - seen]
        if any(self._wanted.values[place] is None for place in self._behind[0].arguments[1:]):
            raise ValueError("the first layer's weights are not the graph's own")
        made_before = {step.result for step in self._before}
        taken = {place for step in self._behind for place in step.arguments}
        if (taken & (made_before | {0})) != {self._mixed_at}:
            raise ValueError("the layers take more than the view of the features")
