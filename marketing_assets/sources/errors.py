"""The one error of reading landing files."""

from __future__ import annotations


class SourceError(Exception):
    """Landing files that cannot be read as store.yaml says. The message names file or key, what was found and what to do."""
