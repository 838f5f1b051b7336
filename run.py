"""`python run.py ...` from a checkout; `adafocus run ...` is the same for an installed package."""

import sys

from adafocus.cli import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
