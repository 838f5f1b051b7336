"""`python -m adafocus ...` is `adafocus ...`."""

from adafocus.cli import main_and_exit

if __name__ == "__main__":
    main_and_exit()
