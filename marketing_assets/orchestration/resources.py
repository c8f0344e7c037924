"""What assets are given: the shop and its open warehouse.

What belongs here: opening the warehouse once per run, and saying whose run it is. What does not: reading or writing tables.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from marketing_assets.config import Store, load_store, store_path
from marketing_assets.warehouse import Warehouse, open_warehouse

PROCESS_TAG = "marketing/process"
"""Run tag: 'process id:its start time', by which a start-up sensor tells whether the run's process still lives."""


def process_mark(process_id: int) -> str | None:
    """'pid:start time in clock ticks' of a living process; None where there is none. Ids are reused, start times are not."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{process_id}:{fields[19]}"


class ShopResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The shop named by MARKETING_STORE and its warehouse, held by this run from its first asset to its last."""

    store_file: str = ""
    wait_seconds: float = 900.0
    _warehouse: Warehouse = PrivateAttr()

    @property
    def warehouse(self) -> Warehouse:
        return self._warehouse

    @property
    def store(self) -> Store:
        return self._warehouse.store

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["ShopResource"]:
        """Lock and open the warehouse; waits for another run to end, telling who holds it, then gives up."""
        store = load_store(Path(self.store_file) if self.store_file else store_path())
        log = context.log
        holder = f"run {context.run_id[:8]}" if context.run_id else "dagster"
        if context.instance is not None and context.run_id and context.instance.has_run(context.run_id):
            mark = process_mark(os.getpid())
            if mark:
                context.instance.add_run_tags(context.run_id, {PROCESS_TAG: mark})
        tell = log.info if log is not None else print
        with open_warehouse(store, holder, self.wait_seconds, tell) as opened:
            self._warehouse = opened
            yield self
