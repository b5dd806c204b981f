"""The version, where the package and its build find it."""

__version__ = "0.1.0"
