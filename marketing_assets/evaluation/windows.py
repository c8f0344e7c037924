"""Which windows a partition scores, what was known of them, and how increments become report rows.

What belongs here: the time logic shared by all concepts. What does not: what is counted (the concept modules).

Everything additive is kept as increments: a row says what became known on `landed_date` about `event_date`. As of D a
window [start_date, outcome_date] is the sum of its increments with landed_date <= D, so late rows restate the past from
the day they land, and one day or many in a run give the same sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.queries import plain_numbers
from marketing_assets.intervals import Kind, clustered_sums
from marketing_assets.warehouse import Reader

CELL = ("as_of_date", "outcome_date", "issued_date", "horizon_days", "segment_type", "segment", "policy_id")
REPORT = pl.Schema(
    {
        "as_of_date": pl.Date,
        "outcome_date": pl.Date,
        "issued_date": pl.Date,
        "horizon_days": pl.Int64,
        "concept": pl.String,
        "metric": pl.String,
        "segment_type": pl.String,
        "segment": pl.String,
        "policy_id": pl.String,
        "value": pl.Float64,
        "numerator": pl.Float64,
        "denominator": pl.Float64,
        "baseline": pl.String,
        "baseline_value": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "n": pl.Int64,
        "maturity": pl.Float64,
        "is_mature": pl.Boolean,
    }
)
SAME_WEEKDAY_LAGS = (7, 14, 21, 28)
DELAY_HISTORY_DAYS = 28


@dataclass(frozen=True)
class Arrival:
    """How much of an event day has landed, by age of the day.

    curve: as_of_date, age_days (0 .. maturity_days - 1), maturity. Ages beyond count as complete.
    """

    curve: pl.DataFrame
    maturity_days: int
    mature_share: float


def arrival(delays: pl.DataFrame, days: Sequence[date], store: Store, *, is_cold_start_mature: bool) -> Arrival:
    """The share expected to have landed by age, as known at the end of each of `days` and of the day before the first.

    delays: event_date, landed_date, rows. Chain-ladder estimate for right-truncated reporting delays (Lawless 1994):
    with N_d rows that landed d days late among event days at least d days old, F(a) = prod over d > a of
    (1 - N_d / N_0..d), event days of the last DELAY_HISTORY_DAYS + maturity_days. Where is_cold_start_mature is False,
    ages stay immature until event days as old as maturity_days have been seen.
    """
    late = store.maturity_days
    known = [days[0] - timedelta(days=1), *days]
    start = known[0] - timedelta(days=DELAY_HISTORY_DAYS + late)
    length = (days[-1] - start).days + 1
    counts = np.zeros((length, late + 1))
    if delays.height:
        offset = (delays["event_date"] - start).dt.total_days().to_numpy()
        delay = np.maximum((delays["landed_date"] - delays["event_date"]).dt.total_days().to_numpy(), 0)
        rows = delays["rows"].to_numpy().astype(float)
        usable = (offset >= 0) & (offset < length) & (delay <= late)
        np.add.at(counts, (offset[usable], delay[usable]), rows[usable])
    exact = np.vstack([np.zeros(late + 1), np.cumsum(counts, axis=0)])
    upto = np.vstack([np.zeros(late + 1), np.cumsum(np.cumsum(counts, axis=1), axis=0)])
    frames = []
    for day in known:
        newest = (day - start).days
        oldest = max(0, newest - DELAY_HISTORY_DAYS - late)
        share = np.ones(late + 1)
        for age in range(late - 1, -1, -1):
            step = age + 1
            end = newest - step + 1
            seen = upto[end, step] - upto[oldest, step] if end > oldest else 0.0
            arrived = exact[end, step] - exact[oldest, step] if end > oldest else 0.0
            share[age] = share[step] * (1 - arrived / seen) if seen > 0 else share[step]
        if not is_cold_start_mature:
            has_old = newest - late + 1 > oldest and upto[newest - late + 1, late] - upto[oldest, late] > 0
            if not has_old:
                share[:late] = np.minimum(share[:late], np.arange(1, late + 1) / (late + 1))
        frames.append(pl.DataFrame({"as_of_date": [day] * late, "age_days": np.arange(late), "maturity": share[:late]}))
    return Arrival(pl.concat(frames), late, store.evaluation.mature_share)


def scored_windows(
    days: Sequence[date], horizons: Sequence[int], seen: Arrival, first_day: date, *, is_restated: bool = True
) -> pl.DataFrame:
    """The windows of each partition: those that end on D and, restated, those that were not mature as of D - 1.

    Returns as_of_date, outcome_date, start_date, issued_date, horizon_days, maturity, is_mature. Windows that would start
    before first_day + 1 (nothing was issued before first_day) are left out, except windows of one day.
    """
    late = seen.maturity_days
    ages = list(range(late + 1)) if is_restated else [0]
    grid = pl.DataFrame({"as_of_date": list(days)}, schema={"as_of_date": pl.Date}).join(
        pl.DataFrame({"age_days": ages}, schema={"age_days": pl.Int64}), how="cross"
    )
    curve = seen.curve.cast({"age_days": pl.Int64})
    before = curve.select(
        pl.col("as_of_date").dt.offset_by("1d"), pl.col("age_days") + 1, was_mature=pl.col("maturity") >= seen.mature_share
    )
    grid = (
        grid.join(before, on=["as_of_date", "age_days"], how="left")
        .filter((pl.col("age_days") == 0) | ~pl.col("was_mature"))
        .join(curve, on=["as_of_date", "age_days"], how="left")
        .with_columns(pl.col("maturity").fill_null(1.0))
        .with_columns(
            outcome_date=pl.col("as_of_date") - pl.duration(days=pl.col("age_days")),
            is_mature=pl.col("maturity") >= seen.mature_share,
        )
    )
    frames = []
    for horizon in horizons:
        first = first_day if horizon == 1 else first_day + timedelta(days=horizon)
        frames.append(
            grid.filter(pl.col("outcome_date") >= first).select(
                "as_of_date",
                "outcome_date",
                start_date=pl.col("outcome_date").dt.offset_by(f"-{horizon - 1}d"),
                issued_date=pl.col("outcome_date").dt.offset_by(f"-{horizon}d"),
                horizon_days=pl.lit(horizon, pl.Int64),
                maturity="maturity",
                is_mature="is_mature",
            )
        )
    return pl.concat(frames).sort("as_of_date", "outcome_date", "horizon_days")


def changes(states: pl.DataFrame, entity: Sequence[str], dimensions: Sequence[str], measures: Sequence[str]) -> pl.DataFrame:
    """Increments from rows that replace each other: each new state takes its predecessor back.

    states: `entity` columns, landed_date, `dimensions` (event_date among them), `measures`. A later row of an entity
    replaces the earlier one; both the removal and the addition carry the later row's landed_date.
    """
    ordered = states.sort(*entity, "landed_date")
    following = ordered.with_columns(landed_date=pl.col("landed_date").shift(-1).over(list(entity))).filter(
        pl.col("landed_date").is_not_null()
    )
    removed = following.with_columns(-pl.col(*measures))
    return pl.concat([ordered, removed.select(ordered.columns)]).select("landed_date", *dimensions, *measures)


def in_force(reader: Reader, rows: pl.DataFrame, entries: pl.DataFrame, by: str | None = None) -> pl.DataFrame:
    """Rows with the columns of the entry in force at their issued_date, null where there was none: the newest by then, of the same
    `by`, since the keyframe before it (a change log is not looked at beyond). In order of issued_date and `by`.

    entries: as_of_date, `by`, and what is to be added.
    """
    keyframes = rows.select(issued_date=pl.col("issued_date").unique())
    keyframes = keyframes.with_columns(keyframe=pl.Series([reader.keyframe_before(day) for day in keyframes["issued_date"]], dtype=pl.Date))
    order = [] if by is None else [by]
    found = (
        rows.sort("issued_date", *order)
        .join_asof(
            entries.with_columns(since="as_of_date").sort("as_of_date", *order),
            left_on="issued_date", right_on="as_of_date", by=by, check_sortedness=False,
        )
        .join(keyframes, on="issued_date", how="left", maintain_order="left")
    )  # fmt: skip
    added = [name for name in entries.columns if name not in ("as_of_date", *order)]
    return found.select(*rows.columns, pl.when(pl.col("since") >= pl.col("keyframe")).then(pl.col(added)))


@dataclass(frozen=True)
class Increments:
    """What became known when, by part of the shop: the whole and each segment, every part under a number.

    rows: event_date, landed_date, cluster (where kept by user), part, measures. parts: part, segment_type, segment, policy_id.
    """

    rows: pl.DataFrame
    parts: pl.DataFrame

    def only(self, chosen: pl.Expr) -> Increments:
        """The parts of which `chosen` holds."""
        kept = self.parts.filter(chosen)
        return Increments(self.rows.join(kept, on="part", how="semi"), kept)

    def in_total(self, measures: Sequence[str]) -> Increments:
        """Without users."""
        return Increments(self.rows.group_by("event_date", "landed_date", "part").agg(pl.col(*measures).sum()), self.parts)


@dataclass(frozen=True)
class Cells:
    """Sums by scored window and part.

    rows: cell, cluster (where kept by user; each once per cell), measures, in order of cell and cluster. names: CELL and its cell,
    which several may share.
    """

    rows: pl.DataFrame
    names: pl.DataFrame

    def only(self, chosen: pl.Expr) -> Cells:
        """The cells of which `chosen` holds."""
        kept = self.names.filter(chosen)
        return Cells(self.rows.join(kept, on="cell", how="semi", maintain_order="left"), kept)

    def within(self, windows: pl.DataFrame) -> Cells:
        """The cells of these windows."""
        kept = self.names.join(windows, on=["as_of_date", "outcome_date", "horizon_days"], how="semi", maintain_order="left")
        return Cells(self.rows.join(kept, on="cell", how="semi", maintain_order="left"), kept)

    def with_rows(self, rows: pl.DataFrame) -> Cells:
        return Cells(rows, self.names)


def stack(rows: pl.DataFrame, segments: Mapping[str, str], measures: Sequence[str], policy: str | None = None) -> Increments:
    """Add up increments for the whole and for each segment.

    rows: event_date, landed_date, cluster (unless in total), segment columns, measures. segments: segment_type -> column. With
    `policy`, each policy of that column also gets its own 'all' part.
    """
    base = ["event_date", "landed_date", *(["cluster"] if "cluster" in rows.columns else [])]
    asked = [("all", None), *segments.items(), *([("all", policy)] if policy else [])]
    frames, names, count = [], [], 0
    for kind, column in asked:
        kept = rows if column is None else rows.filter(pl.col(column).is_not_null())
        by = base if column is None else [*base, column]
        summed = kept.group_by(by).agg(pl.col(*measures).sum())
        if column is None:
            part = pl.DataFrame({"name": ["all"], "part": [count]})
            summed = summed.with_columns(part=pl.lit(count, pl.Int64))
        else:
            part = summed.select(column).unique().sort(column).with_row_index("part", offset=count).cast({"part": pl.Int64})
            summed = summed.join(part, on=column)
            part = part.select(name=pl.col(column).cast(pl.String), part="part")
        frames.append(summed.select(*base, "part", *measures))
        is_policy = policy is not None and column == policy
        names.append(
            part.select(
                "part",
                segment_type=pl.lit(kind),
                segment=pl.lit("all") if is_policy else pl.col("name"),
                policy_id=pl.col("name") if is_policy else pl.lit("all"),
            )
        )
        count += part.height
    return Increments(pl.concat(frames), pl.concat(names))


def together(stacks: Sequence[Increments]) -> Increments:
    """Increments of several stacks as one, parts of the same name under one number; measures one of them lacks are 0 there."""
    keys = ["segment_type", "segment", "policy_id"]
    parts = pl.concat([each.parts.select(keys) for each in stacks]).unique().sort(keys)
    parts = parts.with_row_index("part").select(pl.col("part").cast(pl.Int64), *keys)
    frames = []
    for each in stacks:
        renamed = each.parts.join(parts.rename({"part": "number"}), on=keys).select("part", "number")
        frames.append(each.rows.join(renamed, on="part").drop("part").rename({"number": "part"}))
    rows = pl.concat(frames, how="diagonal_relaxed")
    measures = [name for name in rows.columns if name not in ("event_date", "landed_date", "cluster", "part")]
    return Increments(rows.with_columns(pl.col(measures).fill_null(0)), parts)


def expand(stacked: Increments, windows: pl.DataFrame, measures: Sequence[str], *, by_cluster: bool = True) -> Cells:
    """Sums of increments per scored window, part and cluster, as known at as_of_date.

    A window that is stated on several days without anything new is one cell with several names.
    """
    dates = windows.with_columns(event_date=pl.date_ranges("start_date", "outcome_date")).explode("event_date")
    landings = stacked.rows.select("event_date", "landed_date", "part").unique()
    known = (
        dates.join(landings, on="event_date", how="inner")
        .filter(pl.col("landed_date") <= pl.col("as_of_date"))
        .group_by("as_of_date", "issued_date", "start_date", "outcome_date", "horizon_days", "part")
        .agg(newest=pl.col("landed_date").max())
    )
    state = ["start_date", "outcome_date", "part", "newest"]
    states = known.select(state).unique().sort(state).with_row_index("cell").cast({"cell": pl.Int64})
    rows = (
        states.with_columns(event_date=pl.date_ranges("start_date", "outcome_date"))
        .explode("event_date")
        .join(stacked.rows, on=["event_date", "part"], how="inner")
        .filter(pl.col("landed_date") <= pl.col("newest"))
    )
    rows = by_cell_and_cluster(rows, measures) if by_cluster else rows.group_by("cell").agg(pl.col(*measures).sum())
    names = known.join(states, on=state).join(stacked.parts, on="part")
    return Cells(rows, names.select("cell", *CELL).sort(CELL))


def by_cell_and_cluster(rows: pl.DataFrame, measures: Sequence[str]) -> pl.DataFrame:
    """Sums of measures by cell and cluster, in order of both.

    Names of an Enum are numbers already: with the cell's they make one key, which takes half as long to group and sort by as two.
    """
    names = rows.schema["cluster"]
    if not isinstance(names, pl.Enum):
        return rows.group_by("cell", "cluster").agg(pl.col(*measures).sum()).sort("cell", "cluster")
    size = len(names.categories) + 1  # no name comes first
    key = pl.col("cell") * size + pl.col("cluster").to_physical().cast(pl.Int64).fill_null(-1) + 1
    summed = rows.select(*measures, key=key).group_by("key").agg(pl.col(*measures).sum()).sort("key")
    number = pl.col("key") % size
    return summed.select(
        *measures, cell=pl.col("key") // size, cluster=pl.when(number > 0).then(number - 1).cast(pl.UInt32).cat.to(names)
    )


def same_weekday_totals(stacked: Increments, windows: pl.DataFrame, measures: Sequence[str]) -> pl.DataFrame:
    """What the same weekdays of the four weeks before brought, as known at as_of_date, per cell: summed measures, weeks seen.

    stacked: in total, without users.
    """
    shifted = pl.concat(
        [
            windows.with_columns(
                start=pl.col("start_date").dt.offset_by(f"-{lag}d"),
                end=pl.col("outcome_date").dt.offset_by(f"-{lag}d"),
                lag=pl.lit(lag),
            )
            for lag in SAME_WEEKDAY_LAGS
        ]
    )
    dates = shifted.with_columns(event_date=pl.date_ranges("start", "end")).explode("event_date")
    by = ["as_of_date", "outcome_date", "issued_date", "horizon_days", "part"]
    rows = (
        dates.join(stacked.rows, on="event_date", how="inner")
        .filter(pl.col("landed_date") <= pl.col("as_of_date"))
        .group_by(by)
        .agg(pl.col(*measures).sum(), weeks=pl.col("lag").n_unique())
    )
    return rows.join(stacked.parts, on="part").drop("part")


@dataclass(frozen=True)
class Ratio:
    """A metric: sum of `num` over sum of `den` (expressions over the measures); den None for a total."""

    metric: str
    num: pl.Expr
    den: pl.Expr | None
    kind: Kind


def report(
    concept: str,
    metrics: Sequence[Ratio],
    cells: Cells,
    windows: pl.DataFrame,
    store: Store,
    baselines: pl.DataFrame | None = None,
    baseline: str | None = "same_weekday_4_weeks",
) -> pl.DataFrame:
    """Report rows of metrics that share cells. `cells` as from `expand`, `baselines` as from `same_weekday_totals`."""
    frames = []
    settings = store.evaluation
    columns = cells.rows.select(
        *[ratio.num.cast(pl.Float64).alias(f"{ratio.metric} num") for ratio in metrics],
        *[(ratio.den if ratio.den is not None else pl.lit(0.0)).cast(pl.Float64).alias(f"{ratio.metric} den") for ratio in metrics],
    )
    for ratio in metrics:
        scored = clustered_sums(
            cells.rows["cell"],
            cells.rows["cluster"],
            columns[f"{ratio.metric} num"].to_numpy(),
            columns[f"{ratio.metric} den"].to_numpy(),
            ratio.kind,
            level=settings.interval,
            replicates=settings.bootstrap_replicates,
            seed=store.seed,
        )
        scored = cells.names.join(scored, on="cell").drop("cell")
        scored = scored.with_columns(concept=pl.lit(concept), metric=pl.lit(ratio.metric))
        if baselines is None:
            scored = scored.with_columns(baseline=pl.lit(None, pl.String), baseline_value=pl.lit(None, pl.Float64))
        else:
            den = ratio.den.cast(pl.Float64) if ratio.den is not None else pl.col("weeks").cast(pl.Float64)
            known = baselines.select(*CELL, baseline_value=pl.when(den != 0).then(ratio.num.cast(pl.Float64) / den))
            scored = scored.join(known, on=CELL, how="left").with_columns(
                baseline=pl.when(pl.col("baseline_value").is_not_null()).then(pl.lit(baseline))
            )
        frames.append(scored)
    return finish(pl.concat(frames, how="diagonal"), windows)


def finish(scored: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
    """Add maturity by window and put the columns in the report's order."""
    mature = windows.select("as_of_date", "outcome_date", "horizon_days", "maturity", "is_mature").unique(
        ["as_of_date", "outcome_date", "horizon_days"], keep="first", maintain_order=True
    )
    joined = scored.join(mature, on=["as_of_date", "outcome_date", "horizon_days"], how="left")
    return joined.select([pl.col(name).cast(kind) for name, kind in REPORT.items()])


def empty_report() -> pl.DataFrame:
    return pl.DataFrame(schema=REPORT)


def frame_of(expression: Any) -> pl.DataFrame:
    """Run an Ibis expression that cannot be compiled in advance (lists of days or keys within)."""
    frame: pl.DataFrame = expression.to_polars()
    return plain_numbers(frame)
