"""Names of environment variables that the launcher sets for its processes; this module does not import torch."""

STORE = "ADAFOCUS_STORE"  # port of the rendezvous store; for rank 0 also the file descriptor of the listening socket
PARENT = "ADAFOCUS_PARENT"  # file descriptor of a pipe that carries the launcher's signals and closes when it dies
