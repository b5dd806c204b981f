"""Tools of the project's own: no part of the package, and in no wheel."""
