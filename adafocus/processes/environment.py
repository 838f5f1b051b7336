"""Names of the environment variables between a launcher and its processes (apart, so that launching needs no torch)."""

STORE = "ADAFOCUS_STORE"  # port on which processes that we started meet; for rank 0 also the socket that listens there
PARENT = "ADAFOCUS_PARENT"  # pipe through which a launcher passes signals on, and which closes when it dies
