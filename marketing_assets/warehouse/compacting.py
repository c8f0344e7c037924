"""Deleted rows leave the disk only when the file is written anew: blocks that were freed keep their bytes until they are used again.

What belongs here: writing the warehouse into a new file. What does not: deleting anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import duckdb

from marketing_assets.config import Store
from marketing_assets.warehouse.copies import warehouse_path
from marketing_assets.warehouse.opening import FILE_VERSION, warehouse_lock
from marketing_assets.warehouse.tables import text_literal


def compact(store: Store, holder: str, wait_seconds: float = 900, tell: Callable[[str], None] = print) -> None:
    """Copy the warehouse into a file of its own and put that in its place, whole or not at all. It must not be open."""
    path = warehouse_path(store)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with warehouse_lock(path, holder, wait_seconds, tell):
        try:
            with duckdb.connect(config={"threads": str(store.threads), "memory_limit": "4GB"}) as connection:
                connection.execute(f"ATTACH {text_literal(path)} AS old")
                connection.execute("CHECKPOINT old")
                connection.execute(f"ATTACH {text_literal(temporary)} AS new (STORAGE_VERSION '{FILE_VERSION}')")
                connection.execute("COPY FROM DATABASE old TO new")
                connection.execute("DETACH new")
                connection.execute("DETACH old")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
