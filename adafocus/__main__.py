"""Runs the command line: `python -m adafocus ...` does the same as `adafocus ...`."""

from adafocus.cli import main_and_exit

if __name__ == "__main__":
    main_and_exit()
