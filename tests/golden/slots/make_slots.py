"""Writes v1/: the folder of models as the first version left it. Run once, with its code.

That version named its one bundle in `current.json` and kept it as `<digest, 16 digits>.zip`. The
bundle is the golden one of `tests/golden/bundles`.
"""

import json
import zipfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "bundles" / "bundle_v1.zip"


def main() -> None:
    """Write the folder beside this script."""
    folder = Path(__file__).with_name("v1")
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(SOURCE) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files["manifest.json"])
    signature = manifest.pop("signature")
    files["manifest.json"] = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    digest = sha256(files["manifest.json"]).hexdigest()
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    (folder / f"{digest[:16]}.zip").write_bytes(buffer.getvalue())
    record = {
        "version": manifest["version"],
        "digest": digest,
        "signed_by": signature["key_id"],
    }
    (folder / "current.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
