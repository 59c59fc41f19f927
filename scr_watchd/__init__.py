"""Drop a container image into a directory and stock nginx serves it."""

__version__ = "0.1.0"
