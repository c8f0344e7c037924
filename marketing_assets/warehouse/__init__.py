"""How tables are stored: read a window, replace a window in one transaction, the ledger, the lock.

What belongs here: everything that knows the warehouse is DuckDB. What does not: what the numbers mean.

Readers get a `Reader`; concept functions take one as their only door to data. What they built goes to
`Warehouse.replace_window`, which validates it against the pandera models and replaces the window and the fitted models in
one transaction with the ledger rows, or changes nothing.
"""

from marketing_assets.warehouse.built import Built, FittedModel, Trigger
from marketing_assets.warehouse.copies import (
    LEDGER_SCHEMA,
    ledger_copy,
    read_ledger_copy,
    read_verdict_copy,
    replace_file,
    verdict_copy,
    warehouse_path,
)
from marketing_assets.warehouse.errors import InvalidTable, MissingPartitions, WarehouseBusy, WarehouseError
from marketing_assets.warehouse.opening import open_warehouse
from marketing_assets.warehouse.reader import Reader, days_between, reader_over
from marketing_assets.warehouse.tables import create_tables, engine, insert_model, polars_schema, verification_rules
from marketing_assets.warehouse.writing import LedgerRow, Warehouse, cut_by_rows, digest

__all__ = [
    "LEDGER_SCHEMA",
    "Built",
    "FittedModel",
    "InvalidTable",
    "LedgerRow",
    "MissingPartitions",
    "Reader",
    "Trigger",
    "Warehouse",
    "WarehouseBusy",
    "WarehouseError",
    "create_tables",
    "cut_by_rows",
    "days_between",
    "digest",
    "engine",
    "insert_model",
    "ledger_copy",
    "open_warehouse",
    "polars_schema",
    "read_ledger_copy",
    "read_verdict_copy",
    "reader_over",
    "replace_file",
    "verdict_copy",
    "verification_rules",
    "warehouse_path",
]
