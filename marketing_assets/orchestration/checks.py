"""What was verified, and what a person should look at, as asset checks.

What belongs here: check names, their severity, and reading their figures. What does not: protecting the data. Publishing
verifies every row inside its transaction and changes nothing where a rule is broken; checks say so in the UI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from marketing_assets.catch_up import freshness
from marketing_assets.config import GATE_DAYS, Store
from marketing_assets.pipeline import Step
from marketing_assets.running import StepResult
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Warehouse, read_ledger_copy, verification_rules

SCHEMA = "schema_holds"


def _extra(step: Step) -> list[tuple[str, str, str, bool]]:
    """(check, table, description, blocking) beside the schema check."""
    if step.name == "cleaning":
        return [
            ("every_row_accounted_for", "rejected_rows", "raw rows = clean rows + rejected rows, for events and impressions", True),
            ("few_rows_refused", "rejected_rows", "the share of refused rows is below drift.reject_rate_threshold", False),
        ]
    if step.name == "response":
        return [("rates_are_calibrated", "response_calibration",
                 "predicted over observed clicks and conversions are within the limits of store.yaml; the plan itself refuses others", False)]
    if step.name == "ad_planning":
        return [("plan_was_made", "ad_plan_runs", "the newest plan is optimal, or says what had to give way", False)]
    if step.name == "drift":
        return [("no_drift", "drift_report", "no watched figure drifted on the newest day", False)]
    return []


def check_specs(step: Step) -> list[dg.AssetCheckSpec]:
    """The checks of a step's tables."""
    schema = [
        dg.AssetCheckSpec(SCHEMA, asset=table, blocking=True, description=f"every row keeps the rules of {table}; verified before publishing")
        for table in step.tables
    ]
    return schema + [
        dg.AssetCheckSpec(name, asset=table, blocking=blocking, description=text) for name, table, text, blocking in _extra(step)
    ]


def check_results(
    warehouse: Warehouse, step: Step, results: Sequence[StepResult], selected: Iterable[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckResult]:
    """The outcome of the selected checks for what a run published."""
    for key in sorted(selected, key=lambda one: (one.asset_key.to_user_string(), one.name)):
        table = key.asset_key.to_user_string()
        if key.name == SCHEMA:
            rows = sum(sum(result.rows[table].values()) for result in results)
            rules = len(verification_rules(TABLES[table]))
            yield dg.AssetCheckResult(
                passed=True, check_name=key.name, asset_key=table, metadata={"rows_verified": rows, "rules": rules}
            )
            continue
        passed, metadata = _JUDGES[key.name](warehouse, results)
        severity = dg.AssetCheckSeverity.ERROR if key.name in _ERRORS else dg.AssetCheckSeverity.WARN
        yield dg.AssetCheckResult(passed=passed, check_name=key.name, asset_key=table, metadata=metadata, severity=severity)


Outcome = tuple[bool, dict[str, Any]]


def _accounted(warehouse: Warehouse, results: Sequence[StepResult]) -> Outcome:
    """From the ledger's row counts alone."""
    off: dict[str, int] = {}
    rejected = warehouse.reader(results[-1].days[-1]).rejected_counts(results[0].days[0], results[-1].days[-1])
    total = 0
    for source in ("events", "impressions"):
        for result in results:
            for day in result.days:
                raw = warehouse.ledger.get((f"raw_{source}", day))
                if raw is None:
                    continue
                total += raw.rows
                difference = raw.rows - result.rows[f"clean_{source}"][day] - rejected.get((source, day), 0)
                if difference:
                    off[f"{source} {day}"] = difference
    return not off, {"raw_rows": total, "days_off": len(off), **dict(list(off.items())[:5])}


def _refused(warehouse: Warehouse, results: Sequence[StepResult]) -> Outcome:
    start, end = results[0].days[0], results[-1].days[-1]
    refused = sum(warehouse.reader(end).rejected_counts(start, end).values())
    landed = sum(
        row.rows for (table, day), row in warehouse.ledger.items() if table.startswith("raw_") and start <= day <= end
    )
    share = refused / landed if landed else 0.0
    limit = warehouse.store.drift.reject_rate_threshold
    return share <= limit, {"refused_rows": refused, "landed_rows": landed, "share": share, "limit": limit}


def _calibrated(warehouse: Warehouse, results: Sequence[StepResult]) -> Outcome:
    from marketing_assets.response.calibration import calibration_verdict

    day = results[-1].days[-1]
    rows = warehouse.reader(day).window("response_calibration", day - timedelta(days=GATE_DAYS), day)
    verdict = calibration_verdict(rows, day, warehouse.store.response)
    return verdict.is_calibrated, {"reasons": "; ".join(verdict.reasons) or "none"}


def _planned(warehouse: Warehouse, results: Sequence[StepResult]) -> Outcome:
    day = results[-1].days[-1]
    row = warehouse.reader(day).window("ad_plan_runs", day, day).row(0, named=True)
    return row["status"] in ("optimal", "no_inputs"), {"status": row["status"], "note": row["note"] or "", "gap": row["gap"] or 0.0}


def _quiet(warehouse: Warehouse, results: Sequence[StepResult]) -> Outcome:
    day = results[-1].days[-1]
    rows = warehouse.reader(day).window("drift_report", day, day).filter("is_drifted")
    return rows.is_empty(), {"drifted": rows.height, **{row["metric"]: row["cause"] or "" for row in rows.head(10).to_dicts()}}


_JUDGES = {"every_row_accounted_for": _accounted, "few_rows_refused": _refused, "rates_are_calibrated": _calibrated,
           "plan_was_made": _planned, "no_drift": _quiet}
_ERRORS = ("every_row_accounted_for", "rates_are_calibrated")


FRESH = "is_fresh"


def _freshness(store: Store) -> tuple[bool, dict[str, Any]]:
    state = freshness(store, read_ledger_copy(store), datetime.now(UTC))
    return state.is_fresh, {"closed": dg.MetadataValue.text(str(state.closed)), "expected": dg.MetadataValue.text(str(state.expected))}


def freshness_evaluation(store: Store) -> dg.AssetCheckEvaluation:
    """'is_fresh' of daily_report as an event, for the sensor that looks between runs."""
    passed, metadata = _freshness(store)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("daily_report"), check_name=FRESH, passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata
    )


def is_fresh(store: Store) -> dg.AssetChecksDefinition:
    """Whether, by the ledger, the newest closed day is the one it should be."""

    @dg.asset_check(name=FRESH, asset="daily_report", description="the newest closed day is yesterday's, by the ledger")
    def check() -> dg.AssetCheckResult:
        passed, metadata = _freshness(store)
        return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)

    return check
