"""The commands of `adafocus` except `run`: they parse arguments, call other subpackages and print results."""
