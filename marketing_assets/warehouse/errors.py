"""What can go wrong with the warehouse.

What belongs here: errors that callers tell apart. What does not: those of concepts.
"""

from __future__ import annotations


class WarehouseError(Exception):
    """Base of what can go wrong with the warehouse; the message says where and what to do."""


class WarehouseBusy(WarehouseError):
    """Another process holds the warehouse."""


class MissingPartitions(WarehouseError):
    """A day before the window, or an input of it, was never built."""


class InvalidTable(WarehouseError):
    """A computed table breaks its schema; nothing was published."""
