"""One software-defined asset per table, made from the steps of the pipeline.

What belongs here: what Dagster knows of a table (key, group, description, columns, dependencies) and the body every asset shares:
run the step over the window, report what was published. What does not: any computation.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from marketing_assets.config import PAGES, PREVIEW_CHARACTERS, PREVIEW_COLUMNS, PREVIEW_ROWS, PRIVATE_COLUMNS, Store
from marketing_assets.control import request_refit
from marketing_assets.orchestration.checks import check_results, check_specs
from marketing_assets.orchestration.partitions import daily_partitions, days_of
from marketing_assets.orchestration.resources import ShopResource
from marketing_assets.pipeline import Step, steps_of
from marketing_assets.running import StepResult, Tell, run_step
from marketing_assets.schemas import TABLES

OWNERS = {
    "sources": "team:data-engineering", "cleaning": "team:data-engineering", "features": "team:data-engineering",
    "profiles": "team:marketing", "demand": "team:supply", "recommendations": "team:marketing", "response": "team:marketing",
    "planning": "team:marketing", "service": "team:customer-service", "evaluation": "team:analytics", "drift": "team:analytics",
    "registry": "team:analytics", "report": "team:marketing",
}
GROUPS = {name: f"{number:02}_{name}" for number, name in enumerate(OWNERS, 1)}
"""Group of the steps -> group in the UI, which sorts by name: numbers keep the order of the flow."""
KINDS = {"profiles": "lightgbm", "recommendations": "lightgbm", "demand": "lightgbm", "response": "lightgbm", "planning": "cvxpy",
         "features": "ibis", "cleaning": "ibis", "sources": "ibis"}



class RefitConfig(dg.Config):
    """Ask for models to be fitted anew in this run, without waiting for their cadence."""

    refit: list[str] = Field([], description="tables whose models refit now, such as ['response_rates']; empty: none")
    reason: str = Field("asked for in the Dagster UI", description="why; kept with the request and in model_registry")


def _spec(store: Store, step: Step, table: str, made_by: dict[str, Step]) -> dg.AssetSpec:
    spec = TABLES[table]
    upstream = sorted(name for name in step.reads if name not in step.tables and name in made_by)
    declared = spec.model.to_schema().columns
    metadata: dict[str, Any] = {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name, str(kind).removeprefix("!"), description=spec.descriptions[name],
                    constraints=dg.TableColumnConstraints(nullable=declared[name].nullable),
                )
                for name, kind in spec.columns.items()
            ]
        ),
        "dagster/table_name": table,
        "key": ", ".join(spec.key),
        "kind_of_table": spec.kind,
    }
    if lineage := _lineage(table, upstream):
        metadata["dagster/column_lineage"] = lineage
    return dg.AssetSpec(
        table, deps=upstream, description=spec.one_row_per, group_name=GROUPS[step.group], owners=[OWNERS[step.group]],
        kinds={"duckdb", KINDS.get(step.group, "polars")}, metadata=metadata, code_version=step.code_version,
        partitions_def=daily_partitions(store),
    )


def _lineage(table: str, upstream: Sequence[str]) -> dg.TableColumnLineage | None:
    """Columns that come unchanged from one upstream table: same name in exactly one of those read, dates of knowledge aside."""
    columns = [name for name in TABLES[table].columns if name not in ("landed_date", "as_of_date", "raw_row_id")]
    found = {}
    for name in columns:
        holders = [other for other in upstream if name in TABLES[other].columns]
        if len(holders) == 1:
            found[name] = [dg.TableColumnDep(asset_key=holders[0], column_name=name)]
    return dg.TableColumnLineage(deps_by_column=found) if found else None


def assets_of(store: Store) -> list[dg.AssetsDefinition]:
    """Every asset of a shop; tables one computation makes together form one multi-asset."""
    steps = steps_of(store)
    made_by = {table: step for step in steps for table in step.tables}
    return [_assets(store, step, made_by) for step in steps]


def _assets(store: Store, step: Step, made_by: dict[str, Step]) -> dg.AssetsDefinition:
    takes_requests = step.source == "refit_requests"
    options: dict[str, Any] = {
        "name": step.name, "specs": [_spec(store, step, table, made_by) for table in step.tables], "can_subset": True,
        "backfill_policy": dg.BackfillPolicy.single_run(), "check_specs": check_specs(step),
    }
    if takes_requests:

        @dg.multi_asset(**options)
        def with_requests(context: dg.AssetExecutionContext, config: RefitConfig, shop: ShopResource):  # type: ignore[no-untyped-def]
            for asset in config.refit:
                request_refit(shop.store, days_of(context)[-1], asset, reason=config.reason)
            yield from _publish(context, shop, step)

        return with_requests

    @dg.multi_asset(**options)
    def body(context: dg.AssetExecutionContext, shop: ShopResource):  # type: ignore[no-untyped-def]
        yield from _publish(context, shop, step)

    return body


def _publish(
    context: dg.AssetExecutionContext, shop: ShopResource, step: Step
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    days = days_of(context)
    result = run_step(shop.warehouse, step, days, context.run_id, context.log.info)
    if step.name == "report":
        write_pages(shop, days, context.log.info)
    for table in sorted(key.to_user_string() for key in context.selected_asset_keys):
        for day in days:
            context.add_asset_metadata(numbers_of(result, table, day), asset_key=table, partition_key=day.isoformat())
        yield dg.MaterializeResult(asset_key=table, metadata=of_newest(shop, table, result))
    yield from check_results(shop.warehouse, step, [result], context.selected_asset_check_keys)


def write_pages(shop: ShopResource, days: Sequence[date], tell: Tell) -> None:
    """The pages of the newest days built; older ones of a long range are made when somebody asks (`marketing report --day`)."""
    from marketing_assets.report import write_report

    for day in days[-PAGES:]:
        tell(f"report of {day}: {write_report(shop.warehouse.reader(day), day, shop.store)}")


def numbers_of(result: StepResult, table: str, day: date) -> dict[str, Any]:
    """Numbers of a partition, which the UI plots over time."""
    numbers: dict[str, Any] = {"dagster/partition_row_count": result.rows[table][day], "content_hash": result.hashes[table][day]}
    return numbers | {name: round(float(value), 6) for name, value in result.metrics.get(table, {}).get(day, {}).items()}


def of_newest(shop: ShopResource, table: str, result: StepResult) -> dict[str, Any]:
    """What a run shows of a table as a whole: time, a few rows of the newest day that has any, what is lacking, where the report lies."""
    from marketing_assets.report.pictures import picture

    newest = next((day for day in reversed(result.days) if result.rows[table][day]), result.days[-1])
    metadata: dict[str, Any] = {
        "seconds": round(result.seconds, 3), "cpu_seconds": round(result.cpu_seconds, 3), "days": len(result.days),
        "preview": dg.MetadataValue.md(preview(shop, table, newest)),
    }
    if newest != result.days[-1]:
        metadata["preview_of"] = newest.isoformat()
    if drawn := picture(shop.warehouse.reader(newest), table, newest):
        metadata["picture"] = dg.MetadataValue.md(drawn)
    if table in result.degraded:
        metadata["degraded"] = result.degraded[table]
    if table == "daily_report":
        metadata["report"] = dg.MetadataValue.path(str(shop.store.folder / "reports" / f"{result.days[-1]}.html"))
    return metadata


def preview(shop: ShopResource, table: str, day: date) -> str:
    """The first rows of a partition as a markdown table, without the day itself; what would be read as markup is escaped."""
    spec = TABLES[table]
    columns = [name for name in spec.columns if name not in (*PRIVATE_COLUMNS, spec.partition_column)][:PREVIEW_COLUMNS]
    rows = shop.warehouse.reader(day).head(table, day, PREVIEW_ROWS, columns)
    if not rows:
        return f"no rows on {day}"
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value.isoformat(sep=" ", timespec="seconds") if isinstance(value, datetime) else str(value)
    text = f"{value:.4g}" if isinstance(value, float) else text
    text = text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("[", "\\["), ("`", "'"), ("\n", " ")):
        text = text.replace(sign, safe)
    return text


