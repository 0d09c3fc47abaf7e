"""A bundle's first run, in a process of its own that may use little memory and time.

Started by `bundle_gate` in a fresh interpreter. It reads the graph and the golden vectors from its
standard input, runs them, and answers with one line of JSON; whatever the graph does to the
runtime ends with this process.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from models.bundle import Bundle

    Outputs = Mapping[str, NDArray[np.float32]]

PASSED, REFUSED = 0, 5
ANSWER_BYTES = 1 << 16
MAX_GOLDEN_ROWS = 4096
RANGE_SLACK = 1e-6
ONNX_RUNTIME, NUMPY = "onnxruntime", "numpy"


def main(arguments: list[str], content: bytes) -> int:
    """Run the golden vectors and print the verdict.

    Args:
        arguments: the limits (bytes of memory, seconds of processor time), the backend, and how
            many bytes of the content are the graph.
        content: the graph, then the golden vectors.
    """
    memory_bytes, cpu_s, backend, model_bytes = arguments
    limit(int(memory_bytes), int(cpu_s))
    from models.bundle import GOLDEN, MODEL, Bundle
    from models.errors import BundleError

    files = {MODEL: content[: int(model_bytes)], GOLDEN: content[int(model_bytes) :]}
    bundle = Bundle(files, {}, "", "bundle")
    try:
        check_golden(bundle, outputs_of(bundle, backend))
    except BundleError as error:
        reason = error.reason if error.reason in {"golden", "structure"} else "load"
        return _say(REFUSED, reason, str(error))
    except MemoryError:
        return _say(REFUSED, "limits", f"needs more than {memory_bytes} bytes of memory")
    return _say(PASSED, "", "")


def limit(memory_bytes: int, cpu_s: int) -> None:
    """Bound what this process may use of memory, time and disk.

    The number of processes is not bounded: that limit counts all threads of the user, so that a
    busy device would refuse good bundles.
    """
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, ANSWER_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def outputs_of(bundle: Bundle, backend: str) -> Callable[[NDArray[np.float32]], Outputs]:
    """Return what runs the graph: ONNX Runtime or NumPy."""
    from models.inference import Backend, Predictor

    return Predictor(bundle, backend=Backend(backend)).outputs


def check_golden(bundle: Bundle, outputs_of_rows: Callable[[NDArray[np.float32]], Outputs]) -> None:
    """Run the golden inputs.

    Raises:
        BundleError: an output is not finite, out of its range, or not the signed one.
    """
    import numpy as np

    from models.bundle import OUTPUTS
    from models.feature_spec import NUM_FEATURES
    from models.inference import GOLDEN_TOLERANCE

    try:
        expected = bundle.golden()
        features = expected.pop("features")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _golden_error(f"cannot be read ({error!r})") from error
    is_table = features.ndim == 2 and features.shape[1] == NUM_FEATURES
    if not is_table or not 0 < len(features) <= MAX_GOLDEN_ROWS or set(expected) != set(OUTPUTS):
        raise _golden_error(f"are of shape {features.shape} and {sorted(expected)}")
    outputs = outputs_of_rows(features)
    for name, wanted in expected.items():
        found = outputs.get(name)
        if found is None or not np.isfinite(found).all():
            raise _golden_error(f"give values of {name} that are not finite")
        check_range(name, found)
        if found.shape != wanted.shape or not np.allclose(
            found, wanted, rtol=GOLDEN_TOLERANCE, atol=1e-5
        ):
            raise _golden_error(f"give other values of {name} than were signed")


def check_range(name: str, values: NDArray[np.float32]) -> None:
    """Refuse probabilities outside 0 to 1, and days that are negative, too many or out of order.

    Raises:
        BundleError: which output.
    """
    from models.prediction import MAX_DAYS

    most = float(MAX_DAYS) if name == "days_to_failure" else 1.0
    low, high = -RANGE_SLACK, most + RANGE_SLACK
    is_in_order = name != "days_to_failure" or bool((values[:, 1:] >= values[:, :-1]).all())
    if not (is_in_order and float(values.min()) >= low and float(values.max()) <= high):
        raise _golden_error(f"give values of {name} that cannot be")


def _golden_error(what: str) -> Exception:
    from models.errors import BundleError

    return BundleError(
        "bundle", f"its golden vectors {what}", "use another bundle", reason="golden"
    )


def _say(code: int, reason: str, what: str) -> int:
    verdict = {"passed": code == PASSED, "reason": reason, "what": what[:500]}
    sys.stdout.write(json.dumps(verdict) + "\n")
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer.read()))
