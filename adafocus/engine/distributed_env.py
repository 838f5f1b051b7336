"""Names of the environment variables between a launcher and its processes (apart, so that launching needs no torch)."""

STORE = "ADAFOCUS_STORE"  # the file in which processes that we started meet
PARENT = "ADAFOCUS_PARENT"  # the pipe that closes when their launcher dies
