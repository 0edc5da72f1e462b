"""Write the library of the API reference as server/api/pages/scalar.lock.json pins it: `uv run python
scripts/vendor_scalar.py`, after a change of `version` and `integrity` there.

A test compares the file with the lock. Needs npm."""

import base64
import gzip
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

import orjson

PAGES = Path(__file__).resolve().parent.parent / "server" / "api" / "pages"
LOCK = PAGES / "scalar.lock.json"


def main() -> None:
    lock = orjson.loads(LOCK.read_bytes())
    library = downloaded(f"{lock['package']}@{lock['version']}", lock["integrity"], lock["file"])
    (PAGES / "scalar.js.gz").write_bytes(gzip.compress(library, mtime=0))
    lock["sha256"] = hashlib.sha256(library).hexdigest()
    LOCK.write_bytes(orjson.dumps(lock, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def downloaded(package: str, integrity: str, file: str) -> bytes:
    """A file of an npm package whose archive has this integrity."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", package]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - a person runs it
        archive = next(Path(folder).glob("*.tgz"))
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != integrity:
            raise SystemExit(f"{package} has the integrity {found}, not {integrity}")
        with tarfile.open(archive) as files:
            content = files.extractfile(f"package/{file}")
            assert content is not None
            return content.read()


if __name__ == "__main__":
    main()
