"""The daemon on each worker host: it registers the host with the manager and reports its load."""

__version__ = "0.2.0"
