"""Dagster's own storage, one per shop, beside its store.yaml.

What belongs here: where Dagster keeps runs, events and ticks, and writing many events at once. What does not: tables of the shop
(warehouse/); the ledger, not this log, decides what is missing.

A range of a year writes two events per asset and day. Dagster hands them over in batches where DAGSTER_EVENT_BATCH_SIZE asks for
it, but its SQLite log writes each in transactions of its own, which costs more than the work itself; here a batch is two
transactions.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dagster import EventLogEntry
from dagster._config import Field, StringSource
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlalchemy_compat import db_result
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import SingletonThreadPool

from marketing_assets.config import dagster_folder, store_path

BATCH_SIZE = 500
MOST_ENGINES = 20

os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(BATCH_SIZE))


STORED_TOGETHER = ASSET_EVENTS | ASSET_CHECK_EVENTS


class BatchedEventLog(SqliteEventLogStorage):
    """SQLite event log that keeps its connections open and stores a batch of events of assets and checks of one run in two transactions."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._engines: dict[str, Engine] = {}
        self._lent: tuple[int, Connection] | None = None
        """Thread and connection of a transaction of the index that is under way."""

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        """Like the base's, which opens a new engine for every event; the write-ahead log is synced at checkpoints."""
        if shard == INDEX_SHARD_NAME and self._lent is not None and self._lent[0] == threading.get_ident():
            yield self._lent[1]
            return
        with self._db_lock:
            if shard not in self._engines:
                made = create_engine(
                    self.conn_string_for_shard(shard), poolclass=SingletonThreadPool, pool_size=50,
                    connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
                )
                event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
                self._engines[shard] = made
            if shard not in self._initialized_dbs:
                self._initdb(self._engines[shard])
                self._initialized_dbs.add(shard)
            with self._engines[shard].connect() as connection, connection.begin():
                yield connection
            if len(self._engines) > MOST_ENGINES:  # a server sees many runs: one file each
                for name in [name for name in self._engines if name not in (shard, INDEX_SHARD_NAME)]:
                    self._engines.pop(name).dispose()

    def dispose(self) -> None:
        super().dispose()
        for made in self._engines.values():
            made.dispose()
        self._engines.clear()

    @contextmanager
    def _lending(self) -> Iterator[Connection]:
        """One transaction of the index: whatever this thread stores there meanwhile goes into it."""
        with self.index_transaction() as connection:
            self._lent = (threading.get_ident(), connection)
            try:
                yield connection
            finally:
                self._lent = None

    def store_event(self, event: EventLogEntry) -> None:
        """Like the base's; what it does of a check in three transactions is done in one."""
        if event.is_dagster_event and event.dagster_event_type in ASSET_CHECK_EVENTS:
            self.store_event_batch([event])
        else:
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Like `store_event` for each event, in order."""
        runs = {event.run_id for event in events}
        if len(runs) != 1 or not all(event.is_dagster_event and event.dagster_event_type in STORED_TOGETHER for event in events):
            for one in events:
                self.store_event(one)
            return
        statements = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(runs.pop()) as connection:
            for statement in statements:
                connection.execute(statement)
        newest: dict[Any, tuple[EventLogEntry, int]] = {}
        assets: list[tuple[EventLogEntry, int]] = []
        with self._lending() as connection:
            for entry, statement in zip(events, statements, strict=True):
                with db_result(connection, statement) as result:
                    number = result.inserted_primary_key[0]
                if entry.dagster_event_type in ASSET_CHECK_EVENTS:
                    self.store_asset_check_event(entry, number)
                else:
                    assets.append((entry, number))
                    newest[entry.get_dagster_event().asset_key] = assets[-1]
            if assets:
                self._store_asset_event_tags(connection, *map(list, zip(*assets, strict=True)))
            for entry, number in newest.values():  # the asset's row holds its newest event only
                self._store_asset_event(connection, entry, number)


class ShopStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage in MARKETING_DAGSTER_STORAGE, by default `dagster/` beside the shop's store.yaml."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._events = BatchedEventLog(os.path.join(base_dir, "history", "runs", ""))

    @classmethod
    def config_type(cls) -> Any:
        return {"base_dir": Field(StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "ShopStorage":
        base = config_value.get("base_dir") or str(dagster_folder(store_path().parent))
        return cls.from_local(base, inst_data)

    @property
    def event_log_storage(self) -> EventLogStorage:
        return self._events

    def register_instance(self, instance: Any) -> None:
        super().register_instance(instance)
        if not self._events.has_instance:
            self._events.register_instance(instance)
