"""`python -m tests.console [pytest's options]`: everything people do with the console, in both languages."""

import os
import subprocess
import sys
from pathlib import Path

OPTIONS = ("-q", "-s", "--durations=10")


def main() -> int:
    command = [sys.executable, "-m", "pytest", *OPTIONS, str(Path(__file__).parent), *sys.argv[1:]]
    return subprocess.run(command, env=os.environ | {"CONSOLE_TESTS": "all"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
