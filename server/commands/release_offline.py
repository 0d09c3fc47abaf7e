"""`fedcell release key | root | sign`: done where the offline keys are, without a database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .hub import AsJson, say

if TYPE_CHECKING:
    from models.wire.envelope import VerifyKey


def key(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the private key.")],
    as_json: AsJson = False,
) -> None:
    """Make a key for roots, bundles or the server, and beside it the public half."""
    from ..signer import make_key_file, public_key_path

    made = make_key_file(out)
    public = public_key_path(out)
    answer = {"key_id": made.key_id, "private": str(out), "public": str(public)}
    line = f"key {made.key_id}: keep {out} secret; {public} may be shown"
    say(answer, line, as_json=as_json)


def root(
    *,
    root_key: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Private key of the root; may be repeated.")
    ],
    release_key: Annotated[
        Path, typer.Option(metavar="FILE", help="Private key that signs bundles.")
    ],
    online_key: Annotated[
        Path, typer.Option(metavar="FILE", help="Public half of the server's release key.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for root.json, targets.json.")],
    after: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the root in force: rotate it.")
    ] = None,
    old_root_key: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Private key of the root in force, to rotate it."),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Public key whose bundles are believed, too."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the first root of trust, or the next one; carry the folder to the server.

    Devices are given the first `root.json`; every later one they learn from the repository.
    """
    from models.durable_file import write_durably

    from ..clock import machine_clock
    from ..releases.repository import first_root, rotated_root
    from ..signer import load_signer

    now = machine_clock()
    keys = [load_signer(path).key for path in root_key]
    signs = load_signer(release_key).key
    online = public_key(online_key)
    believed = [public_key(path) for path in also or ()]
    if after is None:
        content, targets = first_root(
            root_keys=keys, release_key=signs, online_key=online, now=now, also=believed
        )
    else:
        content, targets = rotated_root(
            (after / "root.json").read_bytes(),
            (after / "targets.json").read_bytes(),
            old_root_keys=[load_signer(path).key for path in old_root_key or ()],
            root_keys=keys,
            release_key=signs,
            online_key=online,
            now=now,
            also=believed,
        )
    out.mkdir(parents=True, exist_ok=True)
    write_durably(out / "targets.json", targets)
    write_durably(out / "root.json", content)
    version = int(json.loads(content)["signed"]["version"])
    line = f"root {version}: take it in with fedcell release accept {out}"
    say({"version": version, "out": str(out)}, line, as_json=as_json)


def sign(
    *,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="Folder that propose wrote.")],
    key_file: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="Private key that signs bundles.")
    ],
    after: Annotated[
        int,
        typer.Option(help="A release that was signed elsewhere: numbers go on above it.", min=0),
    ] = 0,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keeps the last number; none: beside the key."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign what a request asks for: the bundle, and the way back to the one before it.

    A number far above the last that was signed is refused: after it, devices would take no other.
    """
    from ..releases.signed_numbers import last_signed, note_signed, record_path, require_near
    from ..releases.signing import read_request, sign_request
    from ..signer import load_signer

    signer = load_signer(key_file)
    asked, candidate, back = read_request(request)
    kept = record or record_path(key_file)
    require_near(asked.number, last=max(after, last_signed(kept)))
    note_signed(kept, asked.number)
    answer = sign_request(request, signer.key)
    claim = candidate.card["privacy"]["epsilon_release"]
    facts = {
        "release": asked.number,
        "version": candidate.version,
        "digest": candidate.digest,
        "back": back.version,
        "epsilon_release": claim["value"],
        "delta": claim["delta"],
        "key_id": signer.verify_key.key_id,
        "answer": str(answer),
    }
    lines = [
        f"release {asked.number}: {candidate.version} ({candidate.digest[:16]})",
        f"epsilon_release {claim['value']} at delta {claim['delta']}",
        f"way back, release {asked.number + 1}: {back.version} ({back.digest[:16]})",
        f"signed with {signer.verify_key.key_id}: carry {answer} back",
    ]
    say(facts, "\n".join(lines), as_json=as_json)


def public_key(path: Path) -> VerifyKey:
    """Read the public half of a key, as `fedcell release key` wrote it.

    Raises:
        ReleaseInputError: the file does not hold one key.
    """
    from models.trusted_keys import read_trusted_keys
    from models.wire.envelope import VerifyKey

    from ..releases.release_errors import ReleaseInputError

    found = list(read_trusted_keys(path).values())
    if len(found) != 1:
        remedy = "name the .public.json beside a key"
        raise ReleaseInputError(path, f"holds {len(found)} keys", remedy)
    return VerifyKey.from_bytes(found[0])
