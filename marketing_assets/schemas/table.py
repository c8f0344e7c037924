"""What a table is, the register of all tables, and the words models are written in.

What belongs here: what every model shares. What does not: any model (the other modules of this package).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import ibis.expr.datatypes as dt
import pandera.ibis as pa

Kind = Literal["day", "log", "issue"]

Day: TypeAlias = dt.Date
Instant = Annotated[dt.Timestamp, None, 6, True]
Money = Annotated[dt.Decimal, 18, 4, True]

Model = TypeVar("Model", bound=type[pa.DataFrameModel])


@dataclass(frozen=True)
class Table:
    """What the warehouse needs to know of a table.

    kind: 'day' (the partition holds that day's rows), 'log' (a change log: the newest entry of an entity replaces its
    earlier ones) or 'issue' (written on cadence days, in force until the next).
    key: columns that together name a row within the table; partition column included where rows repeat by day.
    entity: for logs, the columns that name what an entry is about; all rows of one entity and day are one entry.
    measured: columns left out of hashes and comparisons.
    """

    name: str
    kind: Kind
    partition_column: str
    key: tuple[str, ...]
    entity: tuple[str, ...]
    measured: tuple[str, ...]
    group: str
    model: type[pa.DataFrameModel]

    @property
    def one_row_per(self) -> str:
        return " ".join((self.model.__doc__ or "").split())

    @cached_property
    def columns(self) -> dict[str, dt.DataType]:
        """Column name -> Ibis type, in the table's order."""
        return {name: column.dtype.type for name, column in self.model.to_schema().columns.items()}

    @cached_property
    def descriptions(self) -> dict[str, str]:
        return {name: column.description or "" for name, column in self.model.to_schema().columns.items()}


TABLES: dict[str, Table] = {}


def table(
    *,
    group: str,
    key: tuple[str, ...],
    kind: Kind = "day",
    partition: str = "as_of_date",
    entity: tuple[str, ...] = (),
    measured: tuple[str, ...] = (),
) -> Callable[[Model], Model]:
    """Register a model under its snake_case name."""

    def register(model: Model) -> Model:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()
        TABLES[name] = Table(name, kind, partition, key, entity, measured, group, model)
        return model

    return register


def column(description: str, *, nullable: bool = False, **checks: Any) -> Any:
    return pa.Field(description=description, nullable=nullable, **checks)


def share(description: str, *, nullable: bool = False) -> Any:
    return column(description, nullable=nullable, ge=0, le=1)
