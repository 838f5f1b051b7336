"""Video recognition that spends its computation where it matters."""

__version__ = "0.1.0"
