"""Opening the warehouse for one process at a time.

What belongs here: the lock, connecting, repairing copies. What does not: reading and writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from marketing_assets.config import Store
from marketing_assets.warehouse.copies import warehouse_path
from marketing_assets.warehouse.errors import WarehouseBusy
from marketing_assets.warehouse.writing import Warehouse

FILE_VERSION = "v1.5.0"
"""New files are written as this version of the engine does, whose texts take a quarter less time to write than those every version reads."""


@contextlib.contextmanager
def warehouse_lock(path: Path, holder: str, wait_seconds: float, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the warehouse alone. Waits up to `wait_seconds`, telling who holds it; then raises WarehouseBusy.

    The operating system drops the lock when its process ends, however it ends.
    """
    lock_path = path.with_name(path.name + ".lock")
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with open(lock_path, "a+", encoding="utf-8") as lock:
        deadline = time.monotonic() + wait_seconds
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                who = lock.read().strip() or "another process"
                if not told:
                    tell(f"{path} is held by {who}; waiting up to {wait_seconds:.0f} s")
                    told = True
                if time.monotonic() >= deadline:
                    raise WarehouseBusy(f"{path} is held by {who}. Wait until it ends, or end that process.") from None
                time.sleep(0.2)
        lock.seek(0)
        lock.truncate()
        lock.write(f"{holder}, process {os.getpid()}, since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}")
        lock.flush()
        try:
            yield
        finally:
            lock.seek(0)
            lock.truncate()


@contextlib.contextmanager
def open_warehouse(
    store: Store, holder: str = "marketing", wait_seconds: float = 900, tell: Callable[[str], None] = print, in_memory: bool = False
) -> Iterator[Warehouse]:
    """The shop's warehouse, locked for this process and with its ledger copy repaired."""
    options: dict[str, Any] = {"threads": str(store.threads)}
    if in_memory:
        connection = duckdb.connect(":memory:", config=options)
        try:
            yield Warehouse(connection, store, None)
        finally:
            connection.close()
        return
    from marketing_assets.compiled import texts_beside

    path = warehouse_path(store)
    with warehouse_lock(path, holder, wait_seconds, tell), texts_beside(path):
        connection = duckdb.connect(str(path), config=options | {"memory_limit": "4GB", "storage_compatibility_version": FILE_VERSION})
        try:
            warehouse = Warehouse(connection, store, path)
            warehouse.copy_ledger()
            warehouse.copy_verdict()
            yield warehouse
        finally:
            connection.close()
