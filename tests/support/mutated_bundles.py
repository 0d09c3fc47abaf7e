"""Bundles that are not as they were released: by damage, by a stranger, and by a trusted key."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from models.bundle import (
    CARD_JSON,
    GOLDEN,
    MANIFEST,
    MODEL,
    sign_bundle,
    write_bundle,
)
from models.bundle_archive import archive_of
from tests.support.onnx_surgery import STRUCTURAL, changed, model
from tests.support.update_bundles import KEY_ID, resigned, variant

if TYPE_CHECKING:
    from pathlib import Path

    from models.bundle import Bundle

COMMITTED_RELEASE = 100
FAILED_VERSION = "update-13"
ODD = (None, True, -1, 0, 2**63, 1e300, "", "x" * 5000, [], [[]], {}, {"a": {}}, "é", [1] * 3000)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bundle to be offered to a device.

    Attributes:
        kind: what was done to it.
        may_run: whether a trusted key signed what may pass for a graph of ours, so that the
            network may be run in the child process.
    """

    kind: str
    may_run: bool = False


def released() -> Bundle:
    """Return the bundle before anything is done to it: newer than what the device committed."""
    return variant(200, release=COMMITTED_RELEASE + 1)


def write_mutation(path: Path, index: int) -> Mutation:
    """Write the mutated bundle of a number; the same one each time.

    Args:
        path: of the zip.
        index: 20 in a row are of 20 recipes; the next 20 of the same with other chances.
    """
    random = Random(index)
    kind, mutate = RECIPES[index % len(RECIPES)]
    mutate(path, random)
    return Mutation(kind, may_run=kind.startswith("resigned "))


def _raw(bundle: Bundle) -> bytearray:
    return bytearray(archive_of(bundle.files))


def _truncated(path: Path, random: Random) -> None:
    raw = _raw(resigned(released()))
    path.write_bytes(raw[: random.randrange(len(raw))])


def _flipped(path: Path, random: Random) -> None:
    raw = _raw(resigned(released()))
    for _ in range(random.choice([1, 1, 1, 8])):
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    path.write_bytes(raw)


def _spliced(path: Path, random: Random) -> None:
    raw = _raw(resigned(released()))
    first = random.randrange(len(raw))
    raw[first : first + random.randrange(200)] = random.randbytes(random.randrange(200))
    path.write_bytes(raw)


def _other_key(path: Path, random: Random) -> None:
    key_id = random.choice([KEY_ID, "stranger", "", "x" * 1000])
    write_bundle(sign_bundle(released(), key_id=key_id, private_key=random.randbytes(32)), path)


def _unsigned(path: Path, random: Random) -> None:
    del random
    write_bundle(released(), path)


def _altered_file(path: Path, random: Random) -> None:
    bundle = resigned(released())
    name = random.choice([MODEL, GOLDEN, CARD_JSON])
    content = bytearray(bundle.files[name])
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    write_bundle(replace(bundle, files={**bundle.files, name: bytes(content)}), path)


def _altered_manifest(path: Path, random: Random) -> None:
    bundle = resigned(released())
    fields = dict(bundle.manifest)
    fields[random.choice([*fields, "more"])] = random.choice(ODD)
    write_bundle(replace(bundle, files={**bundle.files, MANIFEST: _json(fields)}), path)


def _operators(path: Path, random: Random) -> None:
    change = random.choice(list(STRUCTURAL.values()))
    write_bundle(resigned(variant(200, release=101, files={MODEL: changed(change)})), path)


def _huge(path: Path, random: Random) -> None:
    proto = model()
    sizes = [random.choice([-1, 0, 2**31, 2**40, 2**62])]
    sizes += [random.choice([1, 2**16, 2**31]) for _ in range(2)]
    if random.random() < 0.5:
        dims = random.choice(proto.graph.initializer).dims
        del dims[:]
        dims.extend(sizes[: random.randrange(1, 4)])
    else:
        value = random.choice([*proto.graph.input, *proto.graph.output])
        value.type.tensor_type.shape.dim[0].dim_value = sizes[0]
    write_bundle(
        resigned(variant(200, release=101, files={MODEL: proto.SerializeToString()})), path
    )


def _external(path: Path, random: Random) -> None:
    proto = model()
    tensor = random.choice(proto.graph.initializer)
    tensor.data_location = 1
    place = random.choice(["/etc/passwd", "../../store.db", "model.bin", ""])
    tensor.external_data.add(key="location", value=place)
    tensor.external_data.add(key="offset", value=str(random.randrange(2**40)))
    if random.random() < 0.5:
        tensor.ClearField("raw_data")
    write_bundle(
        resigned(variant(200, release=101, files={MODEL: proto.SerializeToString()})), path
    )


def _old(path: Path, random: Random) -> None:
    choice = random.randrange(5)
    if choice == 0:
        bundle = variant(7, release=random.randrange(COMMITTED_RELEASE))
    elif choice == 1:
        bundle = variant(int(FAILED_VERSION.rpartition("-")[2]), release=101)
    elif choice == 2:
        bundle = variant(200, manifest={"feature_spec_digest": random.randbytes(32).hex()})
    elif choice == 3:
        bundle = variant(200, manifest={"format": random.choice([0, 2, 99])})
    else:
        bundle = variant(200, manifest={"least_client_version": random.choice(["0.2", "9.9.9"])})
    write_bundle(resigned(bundle), path)


def _resigned_model(path: Path, random: Random) -> None:
    content = bytearray(variant().files[MODEL])
    for _ in range(random.choice([1, 1, 3])):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    write_bundle(resigned(variant(200, release=101, files={MODEL: bytes(content)})), path)


def _resigned_json(path: Path, random: Random) -> None:
    if random.random() < 0.5:
        fields = {random.choice(list(variant().manifest)): random.choice(ODD)}
        bundle = variant(200, release=101, manifest=fields)
    else:
        golden: dict[str, Any] = json.loads(variant().files[GOLDEN])
        golden[random.choice([*golden, "more"])] = random.choice(ODD)
        bundle = variant(200, release=101, files={GOLDEN: _json(golden)})
    write_bundle(resigned(bundle), path)


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=True).encode()


RECIPES = (
    ("truncated", _truncated),
    ("flipped", _flipped),
    ("spliced", _spliced),
    ("of another key", _other_key),
    ("truncated", _truncated),
    ("flipped", _flipped),
    ("altered manifest", _altered_manifest),
    ("altered file", _altered_file),
    ("other operators", _operators),
    ("huge shapes", _huge),
    ("external data", _external),
    ("old version", _old),
    ("unsigned", _unsigned),
    ("other operators", _operators),
    ("huge shapes", _huge),
    ("old version", _old),
    ("of another key", _other_key),
    ("other operators", _operators),
    ("resigned model", _resigned_model),
    ("resigned json", _resigned_json),
)
