"""Typed errors of exports."""


class ExportError(Exception):
    """Base of what can go wrong with an export; the message says what and what to do."""
