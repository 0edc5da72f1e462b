"""`python -m tests.fuzz --inputs N [--seed S] [--minutes M]`: prints the counts; exit code 1 if anything is wrong."""

import argparse
import math
import sys

from tests.fuzz.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="about how many inputs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends the same inputs")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no chunk after them (default: no end)")
    options = parser.parse_args()
    tally = run(options.inputs, options.seed, seconds=options.minutes * 60)
    print(tally.summary())
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
