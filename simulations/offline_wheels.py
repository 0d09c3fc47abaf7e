"""A folder of wheels with hashes, to install fedcell on a device that reaches no index."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from models.durable_file import write_durably

from .errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = "requirements.txt"
TAGS: Mapping[str, tuple[str, ...]] = {
    "linux-x86_64": tuple(f"manylinux_2_{n}_x86_64" for n in (28, 27, 17, 12, 5)),
    "linux-aarch64": tuple(f"manylinux_2_{n}_aarch64" for n in (28, 27, 17)),
    "linux-armv7l": (*(f"manylinux_2_{n}_armv7l" for n in (31, 28, 17)), "linux_armv7l"),
    "musl-x86_64": ("musllinux_1_2_x86_64", "musllinux_1_1_x86_64"),
    "musl-aarch64": ("musllinux_1_2_aarch64", "musllinux_1_1_aarch64"),
}
"""Short names of platforms, with the tags of wheels for glibc 2.28 (armv7: 2.31) and later."""
LOCAL = "local"
ONNX_RUNTIME = "onnxruntime"
WITHOUT_ONNX_RUNTIME = ("linux-armv7l", "musl-x86_64", "musl-aarch64")
"""Platforms for which ONNX Runtime has no wheels: the NumPy backend serves there."""
_HEADER = """\
# fedcell {version} for {platform}, Python {python}. On the device, in this folder:
#   python3 -m pip install --no-index --find-links . {more}--require-hashes -r {requirements}
"""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel of the set.

    Attributes:
        name: of the distribution, normalised.
        version: of the distribution.
        file: its name.
        size: bytes.
        sha256: hex.
    """

    name: str
    version: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelRequest:
    """What is wanted.

    Attributes:
        platform: a name of `TAGS`, a tag such as `manylinux_2_28_x86_64`, or `local`.
        python: `3.11` and so on; with `local` that of this interpreter.
        constraints: file that pins versions.
        fedcell: wheel of fedcell itself; None builds one from this checkout.
        indexes: more package indexes, as `--extra-index-url` of pip.
        without: names of distributions that the device's system brings, such as numpy.
    """

    platform: str
    python: str
    constraints: Path
    fedcell: Path | None = None
    indexes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def left_out(self) -> frozenset[str]:
        """Distributions that are not in the set, though fedcell asks for them."""
        tags = {tag for name in WITHOUT_ONNX_RUNTIME for tag in (name, *TAGS[name])}
        return frozenset(self.without) | ({ONNX_RUNTIME} if self.platform in tags else set())


def collect_wheels(wanted: WheelRequest, out: Path) -> list[Wheel]:
    """Download the wheels of an inference install, and write the file of hashes beside them.

    Args:
        wanted: for which platform.
        out: folder without wheels.

    Returns:
        What is in it, by name.

    Raises:
        ReleaseError: the folder holds wheels already, there is no wheel for the platform, or the
            index cannot be reached.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.glob("*.whl")):
        raise ReleaseError(out, "holds wheels already", "give an empty folder")
    if not wanted.constraints.is_file():
        raise ReleaseError(wanted.constraints, "there is no such file", "give --constraints FILE")
    own = _own_wheel(wanted, out)
    _pip(download_command(wanted, own, out), wanted.platform)
    wheels = [wheel_of(path) for path in sorted(out.glob("*.whl"))]
    write_durably(out / REQUIREMENTS, requirements_text(wanted, wheels).encode())
    return wheels


def download_command(wanted: WheelRequest, own: Path, out: Path) -> list[str]:
    """Return pip's arguments.

    Args:
        wanted: for which platform.
        own: wheel of fedcell.
        out: where the others go.
    """
    words = ["download", "--only-binary=:all:", "--dest", str(out), "-c", str(wanted.constraints)]
    words += [word for index in wanted.indexes for word in ("--extra-index-url", index)]
    if wanted.platform != LOCAL:
        digits = wanted.python.replace(".", "")
        for tag in TAGS.get(wanted.platform, (wanted.platform,)):
            words += ["--platform", tag]
        words += ["--python-version", wanted.python, "--implementation", "cp"]
        words += ["--abi", f"cp{digits}", "--abi", "abi3", "--abi", "none"]
    if not wanted.left_out:
        return [*words, str(own)]
    return [*words, "--no-deps", *sorted(closure("fedcell", without=wanted.left_out))]


def closure(name: str, *, without: frozenset[str] = frozenset()) -> set[str]:
    """Return the distributions that one needs here, with all that they need, itself left out.

    Args:
        name: of an installed distribution.
        without: distributions that are left out, with what they alone need.
    """
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [name]
    while waiting:
        for line in requires(waiting.pop()) or []:
            need = Requirement(line)
            known = _normal(need.name)
            is_needed = need.marker is None or need.marker.evaluate({"extra": ""})
            if is_needed and known not in found | without:
                found.add(known)
                waiting.append(known)
    return found


def wheel_of(path: Path) -> Wheel:
    """Describe a wheel by its name and content."""
    name, number = path.name.split("-")[:2]
    content = path.read_bytes()
    return Wheel(
        name=_normal(name),
        version=number,
        file=path.name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def requirements_text(wanted: WheelRequest, wheels: Sequence[Wheel]) -> str:
    """Return the requirements file: every wheel with its version and hash."""
    head = _HEADER.format(
        version=version("fedcell"),
        platform=wanted.platform,
        python=wanted.python,
        more="--no-deps " if wanted.left_out else "",
        requirements=REQUIREMENTS,
    )
    for name in sorted(wanted.left_out):
        serves = "the NumPy backend serves" if name == ONNX_RUNTIME else "the system must have it"
        head += f"# Without {name}: {serves}.\n"
    lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}" for w in wheels]
    return head + "\n".join(lines) + "\n"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _own_wheel(wanted: WheelRequest, out: Path) -> Path:
    if wanted.fedcell is not None:
        if not wanted.fedcell.is_file():
            raise ReleaseError(wanted.fedcell, "there is no such wheel", "check --fedcell")
        own = out / wanted.fedcell.name
        own.write_bytes(wanted.fedcell.read_bytes())
        return own
    if not (REPOSITORY / "pyproject.toml").is_file():
        raise ReleaseError(REPOSITORY, "is no checkout of fedcell", "give --fedcell WHEEL")
    words = ["wheel", "--no-deps", "--wheel-dir", str(out), str(REPOSITORY)]
    if find_spec("hatchling") is not None:
        words.insert(1, "--no-build-isolation")
    _pip(words, wanted.platform)
    return next(out.glob("fedcell-*.whl"))


def _pip(words: Sequence[str], platform: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")]
        first = said[0].removeprefix("ERROR: ") if said else f"pip ended with {ran.returncode}"
        remedy = "check the index, or name another --platform or --python"
        raise ReleaseError(platform, first[:300], remedy)
