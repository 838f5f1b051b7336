"""`python run.py ...` from a checkout; `adafocus run ...` is the same for an installed package."""

import sys

from adafocus.cli import run
from adafocus.processes.signals import exit_process

if __name__ == "__main__":
    exit_process(run(sys.argv[1:]))
