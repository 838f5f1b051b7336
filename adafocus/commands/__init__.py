"""The commands of the console script except `run`: they parse arguments, call other subpackages and print results."""
