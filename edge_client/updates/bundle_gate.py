"""What a bundle goes through before a device takes it up, cheapest and safest first.

Size cap, hashes and signature, structural gate, then load and golden vectors in a child process
with limits. Nothing of a bundle is run before its signature was verified, and nothing is run in
the device's own process before it gave the right answers in another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from models.errors import BundleError

from ..errors import SlotError
from .bundle_trial import ANSWER_BYTES, NUMPY, ONNX_RUNTIME, PASSED, REFUSED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import IO

    from models.bundle import Bundle

    from .slots import SlotState

_REMEDY = "use another bundle"
_PROGRAM = (
    "import json, sys\n"
    "sys.path[:] = json.loads(sys.argv.pop(1))\n"
    "from edge_client.updates.bundle_trial import main\n"
    "sys.exit(main(sys.argv[1:], sys.stdin.buffer.read()))\n"
)
_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TZ")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLimits:
    """What a bundle's first run may use.

    Attributes:
        memory_bytes: address space. ONNX Runtime with a graph of ours maps 150 MB.
        cpu_s: seconds of processor time; half a second is usual.
        wall_s: seconds until the process is ended from outside.
    """

    memory_bytes: int = 512 << 20
    cpu_s: int = 30
    wall_s: float = 90.0


def best_backend() -> str:
    """Return the runtime that this machine predicts with: ONNX Runtime where it is installed."""
    return ONNX_RUNTIME if find_spec("onnxruntime") else NUMPY


def verify(
    source: Path, *, trusted_keys: Mapping[str, bytes], allow_unsigned: bool = False
) -> Bundle:
    """Check a bundle's size, hashes, signature and structure; nothing of it is run.

    Args:
        source: zip or folder.
        trusted_keys: Ed25519 public keys (32 raw bytes) by key id.
        allow_unsigned: accept a bundle without signature.

    Raises:
        models.errors.BundleError: it is refused; `reason` names the rule.
    """
    from models.bundle import load_bundle
    from models.onnx_gate import check_model

    bundle = load_bundle(source, trusted_keys=trusted_keys, allow_unsigned=allow_unsigned)
    try:
        structure = check_model(bundle.model_bytes)
    except BundleError as error:
        what = str(error).partition("; ")[0]
        raise _refused(bundle, what, error.reason) from error
    declared = bundle.manifest.get("operators")
    if declared != list(structure.operators):
        raise _refused(bundle, "its manifest names other operators than its graph", "structure")
    return bundle


def check_history(
    state: SlotState, bundle: Bundle, *, allow_older: bool, allow_rolled_back: bool
) -> None:
    """Refuse what the history of this device forbids.

    Args:
        state: what the device remembers.
        bundle: verified.
        allow_older: accept an older release than the one that was committed last.
        allow_rolled_back: accept a version that failed its trial on this device.

    Raises:
        models.errors.BundleError: an older release, or a version that failed here.
    """
    from . import slots

    reason = slots.why_not(
        state,
        version=str(bundle.version),
        digest=bundle.digest,
        release=bundle.release,
        allow_older=allow_older,
        allow_rolled_back=allow_rolled_back,
    )
    if reason is None:
        return
    what, leave = f"{bundle.version} failed its trial on this device", "--allow-rolled-back"
    if reason is slots.RefusalReason.OLDER_RELEASE:
        what = f"release {bundle.release} is older than {state.least_release}, which runs here"
        if bundle.release is None:
            what = f"has no release number, and release {state.least_release} runs here"
        leave = "--allow-older"
    remedy = f"install a newer one, or say {leave}"
    version = str(bundle.version)
    raise BundleError(bundle.where, what, remedy, reason=reason.value, version=version)


def try_out(
    bundle: Bundle,
    *,
    scratch: Path,
    limits: TrialLimits | None = None,
    backend: str | None = None,
) -> None:
    """Load a verified bundle and run its golden vectors in a child process.

    Args:
        bundle: verified.
        scratch: a folder that can be written; what is put there vanishes with the child.
        limits: of the child.
        backend: `onnxruntime` or `numpy`; None takes the best of this machine.

    Raises:
        models.errors.BundleError: it is refused, or ended or outlasted the child.
        SlotError: the child cannot be started here; nothing was found out about the bundle.
    """
    from models.bundle import GOLDEN

    allowed = limits or TrialLimits()
    model, golden = bundle.model_bytes, bundle.files[GOLDEN]
    arguments = [
        sys.executable,
        "-I",
        "-c",
        _PROGRAM,
        json.dumps([os.path.abspath(entry) for entry in sys.path]),  # noqa: PTH100 - '' is here
        str(allowed.memory_bytes),
        str(allowed.cpu_s),
        backend or best_backend(),
        str(len(model)),
    ]
    try:
        with (
            tempfile.TemporaryFile(dir=scratch) as content,
            tempfile.TemporaryFile(dir=scratch) as answer,
            tempfile.TemporaryFile(dir=scratch) as complaint,
        ):
            content.write(model + golden)
            content.seek(0)
            code = _run(arguments, content, answer, complaint, wall_s=allowed.wall_s)
            said, complained = _start(answer), _start(complaint)
    except OSError as error:
        what = f"the bundle cannot be tried out here: {error.strerror}"
        raise SlotError(scratch, what, "check the folder, the disk and the memory") from error
    _judge(bundle, code, said, complained, allowed)


def _run(
    arguments: list[str],
    content: IO[bytes],
    answer: IO[bytes],
    complaint: IO[bytes],
    *,
    wall_s: float,
) -> int | None:
    """Return the child's exit code, None where it had to be ended."""
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    child = subprocess.Popen(
        arguments,
        stdin=content,
        stdout=answer,
        stderr=complaint,
        env=environment | _ONE_THREAD,
        cwd="/",
    )
    try:
        return child.wait(timeout=wall_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.returncode is None:
            child.kill()
            child.wait()


def _start(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(ANSWER_BYTES).decode("utf-8", "replace")


def _judge(
    bundle: Bundle, code: int | None, said: str, complained: str, limits: TrialLimits
) -> None:
    if code is None:
        raise _refused(bundle, f"was not loaded and run within {limits.wall_s:g} s", "limits")
    if code in {-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGXFSZ}:
        raise _refused(bundle, f"used more than {limits.cpu_s} s or its memory", "limits")
    if code < 0:
        raise _refused(bundle, f"ended the process that ran it (signal {-code})", "load")
    verdict = _verdict(said)
    if code == PASSED and verdict.get("passed") is True:
        return
    if code == REFUSED and verdict.get("passed") is False:
        what = str(verdict.get("what")).partition(": ")[2].partition("; ")[0]
        raise _refused(bundle, what, str(verdict.get("reason")))
    last = (complained.strip().splitlines() or ["no word of why"])[-1]
    what = f"the bundle cannot be tried out here (code {code}: {last[:200]})"
    raise SlotError(bundle.where, what, "pip install --force-reinstall fedcell")


def _verdict(said: str) -> dict[str, object]:
    lines = said.strip().splitlines()
    try:
        verdict = json.loads(lines[-1]) if lines else {}
    except (ValueError, RecursionError):
        return {}
    return verdict if isinstance(verdict, dict) else {}


def _refused(bundle: Bundle, what: str, reason: str) -> BundleError:
    prefix = "model.onnx: "
    return BundleError(
        bundle.where,
        what.removeprefix(prefix),
        _REMEDY,
        reason=reason,
        version=str(bundle.version),
    )
