"""Fails when ``specrag_native/_core.pyi`` is not what the extension says of itself.

Run with ``--write`` to renew the stub.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).parent.parent / "specrag_native" / "_core.pyi"


def generate() -> str:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(sys.executable, "-m", "pybind11_stubgen", "specrag_native._core"),
                *("--output-dir", folder, "--exit-code"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        return (Path(folder) / "specrag_native" / "_core.pyi").read_text()


def main() -> int:
    fresh = generate()
    if "--write" in sys.argv:
        STUB.write_text(fresh)
        return 0
    if not STUB.is_file() or STUB.read_text() != fresh:
        print(f"{STUB} is out of date: run python tests/check_stub.py --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
