"""What a data engineer would write by hand for the same tables: a bare DuckDB script and the same in Polars.

What belongs here: the two peers of bench_data_path.py. Both rebuild everything from the events of one range, know no state
of earlier days, keep no ledger and verify nothing. `clean` makes clean_events from raw_events, `features` the six feature
tables from clean_events.
"""

# ruff: noqa: E501 - queries are easier to read whole
from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

TABLES = ("items", "sessions", "item_days", "user_features", "user_preferences", "item_features")
KINDS = {
    "views": "view_item", "searches": "search", "wishlists": "add_to_wishlist", "carts": "add_to_cart", "checkouts": "begin_checkout",
    "purchases": "purchase", "refunds": "refund", "reviews": "review",
}  # fmt: skip
USER_DECAYS = {
    "orders_decayed_7": ("orders", 7), "orders_decayed_30": ("orders", 30), "orders_decayed_90": ("orders", 90),
    "revenue_decayed_30": ("gross_revenue", 30), "revenue_decayed_90": ("gross_revenue", 90), "views_decayed_7": ("views", 7),
    "views_decayed_30": ("views", 30), "carts_decayed_7": ("carts", 7), "carts_decayed_30": ("carts", 30),
}  # fmt: skip
ITEM_DECAYS = {
    "units_decayed_7": ("units_sold", 7), "units_decayed_30": ("units_sold", 30), "units_decayed_90": ("units_sold", 90),
    "views_decayed_7": ("views", 7), "views_decayed_30": ("views", 30),
}  # fmt: skip
BANDS = [float(f"{step}e{power}") for power in range(-1, 6) for step in (1, 2, 5)] + [1e6]
BAND_NAMES = ["<0.1", *(f"{low:.10g}-{high:.10g}" for low, high in pairwise(BANDS)), "1000000+"]
USER_SUMS = (
    "active_days", "order_days", "units", "revenue", "gross_revenue", "refunds", "events", "views", "searches", "wishlists", "carts", "reviews",
    "ratings", "rating_total", "browse_seconds", "orders", "sessions",
)  # fmt: skip
ITEM_SUMS = (
    "selling_days", "units_sold", "units_returned", "orders", "revenue", "gross_revenue", "views", "carts", "reviews", "ratings", "rating_total",
)  # fmt: skip


def due_days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range(0, (last - first).days + 1, 7)]


# --- DuckDB -----------------------------------------------------------------------------------------------------------


def duckdb_clean(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("""
    CREATE OR REPLACE TABLE clean_events AS
    WITH typed AS (
        SELECT landed_date, raw_row_id, try_cast(event_at AS TIMESTAMP) AS event_at, user_id, event_type, item_id, event_id, order_id,
            try_cast(quantity AS BIGINT) AS quantity, try_cast(unit_price AS DECIMAL(18, 4)) AS unit_price,
            coalesce(try_cast(discount AS DECIMAL(18, 4)), 0) AS discount, try_cast(rating AS DOUBLE) AS rating, review_text,
            try_cast(dwell_seconds AS DOUBLE) AS dwell_seconds, search_query, device, channel, location_id
        FROM raw_events
        WHERE try_cast(event_at AS TIMESTAMP) IS NOT NULL
            AND event_type IN ('view_item', 'search', 'add_to_wishlist', 'add_to_cart', 'begin_checkout', 'purchase', 'refund', 'review')
            AND (item_id IS NOT NULL OR event_type = 'search')
            AND (event_type NOT IN ('purchase', 'refund') OR (try_cast(quantity AS BIGINT) BETWEEN 1 AND 1000000
                 AND try_cast(unit_price AS DECIMAL(18, 4)) BETWEEN 0 AND 1000000))),
    unique_rows AS (
        SELECT * FROM typed QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY landed_date, raw_row_id) = 1),
    numbered AS (
        SELECT *, timezone('Europe/London', timezone('UTC', event_at))::DATE AS event_date,
            CASE WHEN event_at - lag(event_at) OVER w <= INTERVAL 30 MINUTE THEN NULL ELSE event_id END AS begins
        FROM unique_rows WINDOW w AS (PARTITION BY user_id ORDER BY event_at, event_id)),
    named AS (
        SELECT *, CASE WHEN user_id IS NOT NULL THEN last_value(begins IGNORE NULLS) OVER (
            PARTITION BY user_id ORDER BY event_at, event_id ROWS UNBOUNDED PRECEDING) END AS session_id FROM numbered),
    bots AS (
        SELECT user_id, event_date FROM named WHERE user_id IS NOT NULL GROUP BY ALL
        HAVING count(*) FILTER (event_type IN ('view_item', 'search')) > 500 AND count(*) FILTER (event_type = 'purchase') = 0)
    SELECT landed_date, event_date, event_id, event_at, user_id, session_id, event_type, item_id, order_id, quantity, unit_price, discount,
        (CASE event_type WHEN 'purchase' THEN quantity * unit_price - discount WHEN 'refund' THEN -(quantity * unit_price - discount)
            ELSE 0 END)::DECIMAL(18, 4) AS revenue,
        rating, review_text, dwell_seconds, search_query, device, channel, location_id, bots.user_id IS NOT NULL AS is_bot,
        coalesce(regexp_matches(item_id, '^(POST|FEE)'), false) AS is_service, raw_row_id
    FROM named LEFT JOIN bots USING (user_id, event_date)""")


def duckdb_features(connection: duckdb.DuckDBPyConnection, first: date, last: date) -> None:
    due = ", ".join(f"DATE '{day}'" for day in due_days(first, last))
    keyframes = ", ".join(f"DATE '{day}'" for day in due_days(first, last)[::4])
    origin = f"DATE '{first}'"
    run = connection.execute
    kinds = ", ".join(f"count(*) FILTER (event_type = '{kind}') AS {name}" for name, kind in KINDS.items())

    run(f"""
    CREATE OR REPLACE TABLE sessions AS
    WITH parts AS (
        SELECT session_id, landed_date, min({{'a': event_at, 'e': event_id, 'u': user_id, 'd': device, 'c': channel}}) AS first,
            min(event_at) AS started_at, max(event_at) AS ended_at, count(*) AS events, {kinds}, sum(revenue) AS revenue, bool_or(is_bot) AS is_bot
        FROM clean_events WHERE session_id IS NOT NULL GROUP BY ALL)
    SELECT landed_date AS as_of_date, session_id, (min(first) OVER w).u AS user_id, min(started_at) OVER w AS started_at,
        max(ended_at) OVER w AS ended_at, sum(events) OVER w AS events, {", ".join(f"sum({name}) OVER w AS {name}" for name in KINDS)},
        sum(revenue) OVER w AS revenue, (min(first) OVER w).d AS device, (min(first) OVER w).c AS channel, bool_or(is_bot) OVER w AS is_bot,
        row_number() OVER w = 1 AS is_new
    FROM parts WINDOW w AS (PARTITION BY session_id ORDER BY landed_date ROWS UNBOUNDED PRECEDING)""")

    run("""
    CREATE OR REPLACE TABLE item_days AS
    SELECT *, NULL::BOOLEAN AS is_available, NULL::BOOLEAN AS is_promotion,
        round(gross_revenue::DOUBLE / nullif(units_sold, 0), 4)::DECIMAL(18, 4) AS unit_price
    FROM (
        SELECT landed_date, event_date, item_id, location_id, coalesce(sum(quantity) FILTER (event_type = 'purchase'), 0) AS units_sold,
            coalesce(sum(quantity) FILTER (event_type = 'refund'), 0) AS units_returned, count(*) FILTER (event_type = 'purchase') AS orders,
            sum(revenue) AS revenue, coalesce(sum(revenue) FILTER (event_type = 'purchase'), 0) AS gross_revenue,
            count(*) FILTER (event_type = 'view_item') AS views, count(*) FILTER (event_type = 'add_to_cart') AS carts,
            count(*) FILTER (event_type = 'review' AND NOT is_bot) AS reviews, count(rating) FILTER (NOT is_bot) AS ratings,
            coalesce(sum(rating) FILTER (NOT is_bot), 0) AS rating_total
        FROM clean_events
        WHERE item_id IS NOT NULL AND NOT is_service AND (event_type IN ('purchase', 'refund') OR NOT is_bot) GROUP BY ALL)""")

    run(f"""
    CREATE OR REPLACE TABLE items AS
    WITH paid AS (
        SELECT item_id, landed_date, arg_max(unit_price, {{'a': event_at, 'e': event_id}}) AS price
        FROM clean_events WHERE event_type = 'purchase' AND unit_price IS NOT NULL GROUP BY ALL),
    seen AS (
        SELECT item_id, min(landed_date) AS first_seen_date, bool_or(is_service) AS is_service FROM clean_events
        WHERE item_id IS NOT NULL GROUP BY ALL),
    weekly AS (
        SELECT seen.item_id, day, first_seen_date, is_service, arg_max(price, landed_date) AS price FROM seen
        JOIN (SELECT unnest([{due}]) AS day) ON day > first_seen_date
        LEFT JOIN paid ON paid.item_id = seen.item_id AND paid.landed_date <= day GROUP BY ALL),
    every_row AS (
        SELECT seen.item_id, first_seen_date AS day, first_seen_date, is_service, price FROM seen
        LEFT JOIN paid ON paid.item_id = seen.item_id AND landed_date = first_seen_date
        UNION ALL SELECT * FROM weekly)
    SELECT day AS as_of_date, * EXCLUDE (day) FROM every_row WINDOW w AS (PARTITION BY item_id ORDER BY day)
    QUALIFY row_number() OVER w = 1 OR price IS DISTINCT FROM lag(price) OVER w OR day IN ({keyframes})""")

    def weight(column: str, life: int, when: str = "event_date") -> str:
        return f"sum({column} * exp(({when} - {origin}) * {0.6931471805599453 / life}))"

    def faded(name: str, life: int) -> str:
        return f"{name} * exp((as_of_date - {origin}) * {-0.6931471805599453 / life}) AS {name}"

    running = ", ".join(f"coalesce(sum({name}) OVER w, 0) AS {name}" for name in (*USER_SUMS, *USER_DECAYS))
    run(f"""
    CREATE OR REPLACE TABLE user_features AS
    WITH people AS (SELECT * FROM clean_events WHERE user_id IS NOT NULL AND NOT is_bot),
    placed AS (
        SELECT user_id, min(landed_date) AS day, arg_min(event_date, landed_date) AS event_date FROM people
        WHERE event_type = 'purchase' AND NOT is_service GROUP BY user_id, coalesce(order_id, event_date::VARCHAR)),
    by_date AS (
        SELECT user_id, landed_date AS day, event_date, count(*) AS events, bool_or(event_type = 'purchase' AND NOT is_service) AS bought,
            sum(quantity) FILTER (event_type = 'purchase' AND NOT is_service) AS units, sum(revenue) AS revenue,
            coalesce(sum(revenue) FILTER (event_type = 'purchase'), 0) AS gross_revenue, sum(dwell_seconds) AS browse_seconds,
            count(rating) AS ratings, sum(rating) AS rating_total,
            {", ".join(f"count(*) FILTER (event_type = '{KINDS[name]}') AS {name}" for name in ("refunds", "views", "searches", "wishlists", "carts", "reviews"))}
        FROM people GROUP BY ALL),
    daily AS (
        SELECT user_id, day, 1 AS active_days, bool_or(bought)::INT AS order_days, min(event_date) AS first_seen_date,
            max(event_date) AS last_seen_date, min(event_date) FILTER (bought) AS first_order_date, max(event_date) FILTER (bought) AS last_order_date,
            {", ".join(f"sum({name}) AS {name}" for name in USER_SUMS if name not in ("active_days", "order_days", "orders", "sessions"))},
            {", ".join(f"{weight(column, life)} AS {name}" for name, (column, life) in USER_DECAYS.items() if column != "orders")}
        FROM by_date GROUP BY ALL),
    orders AS (
        SELECT user_id, day, count(*) AS orders, {", ".join(f"{weight('1', life)} AS {name}" for name, (column, life) in USER_DECAYS.items() if column == "orders")}
        FROM placed GROUP BY ALL),
    begun AS (SELECT user_id, as_of_date AS day, count(*) AS sessions FROM sessions WHERE is_new AND NOT is_bot GROUP BY ALL),
    grid AS (
        SELECT user_id, day FROM daily
        UNION SELECT user_id, day FROM (SELECT user_id, min(day) AS since FROM daily GROUP BY ALL), (SELECT unnest([{due}]) AS day) WHERE day > since),
    state AS (
        SELECT user_id, day AS as_of_date, min(first_seen_date) OVER w AS first_seen_date, max(last_seen_date) OVER w AS last_seen_date,
            min(first_order_date) OVER w AS first_order_date, max(last_order_date) OVER w AS last_order_date, {running}
        FROM grid LEFT JOIN daily USING (user_id, day) LEFT JOIN orders USING (user_id, day) LEFT JOIN begun USING (user_id, day)
        WINDOW w AS (PARTITION BY user_id ORDER BY day ROWS UNBOUNDED PRECEDING))
    SELECT as_of_date, user_id, first_seen_date, last_seen_date, first_order_date, last_order_date,
        greatest(as_of_date - last_order_date, 0) AS recency_days, {", ".join(USER_SUMS)},
        rating_total / nullif(ratings, 0) AS mean_rating, orders / greatest(as_of_date - first_seen_date + 1, 1) * 30.0 AS purchase_frequency,
        CASE WHEN order_days > 1 THEN (last_order_date - first_order_date) / (order_days - 1) END AS mean_days_between_orders,
        {", ".join(faded(name, life) for name, (_, life) in USER_DECAYS.items())}
    FROM state""")

    band = " ".join(f"WHEN unit_price < {high} THEN '{name}'" for high, name in zip(BANDS, BAND_NAMES, strict=False))
    run(f"""
    CREATE OR REPLACE TABLE user_preferences AS
    WITH folded AS (
        SELECT user_id, landed_date AS day, event_date, device, channel,
            CASE WHEN unit_price IS NULL THEN NULL {band} ELSE '1000000+' END AS price_band,
            ['night', 'morning', 'afternoon', 'evening'][1 + hour(timezone('Europe/London', timezone('UTC', event_at))) // 6] AS hour_block,
            sum(CASE event_type WHEN 'purchase' THEN 5 WHEN 'add_to_cart' THEN 3 WHEN 'add_to_wishlist' THEN 2 ELSE 1 END) AS points
        FROM clean_events
        WHERE user_id IS NOT NULL AND NOT is_bot AND NOT is_service AND item_id IS NOT NULL
            AND event_type IN ('purchase', 'add_to_cart', 'add_to_wishlist', 'view_item') GROUP BY ALL),
    told AS (
        SELECT user_id, day, preference_type, preference_value, {weight("points", 90)} AS weight
        FROM (UNPIVOT folded ON price_band, channel, device, hour_block INTO NAME preference_type VALUE preference_value) GROUP BY ALL),
    held AS (SELECT user_id, preference_type, preference_value, min(day) AS since FROM told GROUP BY ALL),
    grid AS (
        SELECT as_of_date AS day, h.user_id, preference_type, preference_value FROM user_features AS u JOIN held AS h
        ON u.user_id = h.user_id AND as_of_date >= since),
    state AS (
        SELECT user_id, day AS as_of_date, preference_type, preference_value,
            sum(weight) OVER (PARTITION BY user_id, preference_type, preference_value ORDER BY day ROWS UNBOUNDED PRECEDING) AS weight
        FROM grid LEFT JOIN told USING (user_id, day, preference_type, preference_value)),
    shared AS (
        SELECT as_of_date, user_id, preference_type, preference_value, {faded("weight", 90)},
            weight / sum(weight) OVER (PARTITION BY user_id, as_of_date, preference_type) AS share FROM state)
    SELECT as_of_date, user_id, preference_type, preference_value, coalesce(weight, 0) AS weight, coalesce(share, 0) AS share
    FROM (SELECT as_of_date, user_id FROM user_features) LEFT JOIN shared USING (as_of_date, user_id)""")

    running = ", ".join(f"coalesce(sum({name}) OVER w, 0) AS {name}" for name in (*ITEM_SUMS, *ITEM_DECAYS))
    run(f"""
    CREATE OR REPLACE TABLE item_features AS
    WITH daily AS (
        SELECT item_id, landed_date AS day, bool_or(orders > 0)::INT AS selling_days, min(event_date) AS first_seen_date,
            max(event_date) AS last_seen_date, max(event_date) FILTER (orders > 0) AS last_sold_date,
            {", ".join(f"sum({name}) AS {name}" for name in ITEM_SUMS if name != "selling_days")},
            {", ".join(f"{weight(column, life)} AS {name}" for name, (column, life) in ITEM_DECAYS.items())}
        FROM item_days GROUP BY ALL),
    grid AS (
        SELECT item_id, day FROM daily
        UNION SELECT item_id, day FROM (SELECT item_id, min(day) AS since FROM daily GROUP BY ALL), (SELECT unnest([{due}]) AS day) WHERE day > since),
    state AS (
        SELECT item_id, day AS as_of_date, min(first_seen_date) OVER w AS first_seen_date, max(last_seen_date) OVER w AS last_seen_date,
            max(last_sold_date) OVER w AS last_sold_date, {running}
        FROM grid LEFT JOIN daily USING (item_id, day) WINDOW w AS (PARTITION BY item_id ORDER BY day ROWS UNBOUNDED PRECEDING))
    SELECT as_of_date, item_id, first_seen_date, last_seen_date, last_sold_date, {", ".join(ITEM_SUMS)},
        rating_total / nullif(ratings, 0) AS mean_rating, gross_revenue::DOUBLE / nullif(units_sold, 0) AS mean_unit_price,
        {", ".join(faded(name, life) for name, (_, life) in ITEM_DECAYS.items())}
    FROM state""")


# --- Polars -----------------------------------------------------------------------------------------------------------


def polars_clean(raw: Path, target: Path) -> None:
    kinds = list(KINDS.values())
    money = pl.Decimal(18, 4)
    typed = pl.scan_parquet(raw).select(
        "landed_date", "raw_row_id", pl.col("event_at").str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False), "user_id", "event_type",
        "item_id", "event_id", "order_id", pl.col("quantity").cast(pl.Int64, strict=False), pl.col("unit_price").cast(money, strict=False),
        pl.col("discount").cast(money, strict=False).fill_null(0), pl.col("rating").cast(pl.Float64, strict=False), "review_text",
        pl.col("dwell_seconds").cast(pl.Float64, strict=False), "search_query", "device", "channel", "location_id",
    )  # fmt: skip
    moves = pl.col("event_type").is_in(["purchase", "refund"])
    good = pl.col("quantity").is_between(1, 1_000_000) & pl.col("unit_price").is_between(0, 1_000_000)
    valid = typed.filter(
        pl.col("event_at").is_not_null(), pl.col("event_type").is_in(kinds), pl.col("item_id").is_not_null() | (pl.col("event_type") == "search"),
        ~moves | good,
    )  # fmt: skip
    unique = valid.sort("landed_date", "raw_row_id").unique("event_id", keep="first", maintain_order=True)
    local = pl.col("event_at").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/London")
    ordered = unique.with_columns(event_date=local.dt.date()).sort("user_id", "event_at", "event_id")
    breaks = (pl.col("event_at").diff() > timedelta(minutes=30)) | (pl.col("user_id").ne_missing(pl.col("user_id").shift()))
    named = ordered.with_columns(
        session_id=pl.when(pl.col("user_id").is_not_null()).then(
            pl.when(breaks.fill_null(True)).then(pl.col("event_id")).otherwise(None).forward_fill()
        )
    )
    value = (pl.col("quantity") * pl.col("unit_price") - pl.col("discount")).cast(money)
    kind = pl.col("event_type")
    sold = kind == "purchase"
    flagged = named.with_columns(
        revenue=pl.when(sold).then(value).when(kind == "refund").then(-value).otherwise(0).cast(money),
        is_bot=pl.col("user_id").is_not_null() & (kind.is_in(["view_item", "search"]).sum().over("user_id", "event_date") > 500)
        & ~sold.any().over("user_id", "event_date"),
        is_service=pl.col("item_id").str.contains("^(POST|FEE)").fill_null(False),
    )
    flagged.collect(engine="streaming").write_parquet(target)


def polars_features(clean: Path, folder: Path, first: date, last: date) -> None:
    events = pl.scan_parquet(clean)
    due = pl.LazyFrame({"day": due_days(first, last)})
    keyframes = due_days(first, last)[::4]
    kind = pl.col("event_type")
    sold, returned = kind == "purchase", kind == "refund"
    money = pl.Decimal(38, 4)

    def weighted(column: str, life: int) -> pl.Expr:
        age = (pl.col("event_date") - first).dt.total_days().cast(pl.Float64)
        return (pl.col(column).cast(pl.Float64) * (age * (0.6931471805599453 / life)).exp()).sum()

    def faded(name: str, life: int, when: str = "day") -> pl.Expr:
        return pl.col(name) * ((pl.col(when) - first).dt.total_days().cast(pl.Float64) * (-0.6931471805599453 / life)).exp()

    def save(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
        path = folder / f"{name}.parquet"
        frame.collect(engine="streaming").write_parquet(path)
        return pl.scan_parquet(path)

    parts = events.filter(pl.col("session_id").is_not_null()).group_by("session_id", day="landed_date").agg(
        pl.struct("event_at", "event_id", "user_id", "device", "channel").sort_by("event_at", "event_id").first().alias("first"),
        pl.col("event_at").min().alias("started_at"), pl.col("event_at").max().alias("ended_at"), pl.len().alias("events"),
        *((kind == value).sum().cast(pl.Int64).alias(name) for name, value in KINDS.items()), pl.col("revenue").sum(), pl.col("is_bot").any(),
    ).sort("session_id", "day")  # fmt: skip
    sessions = save(
        parts.with_columns(
            pl.col("first").sort_by(pl.col("first").struct.field("event_at"), "day").first().over("session_id"),
            pl.col("started_at").cum_min().over("session_id"), pl.col("ended_at").cum_max().over("session_id"),
            *(pl.col(name).cum_sum().over("session_id") for name in ("events", *KINDS)), pl.col("revenue").cast(money).cum_sum().over("session_id"),
            pl.col("is_bot").cast(pl.Int8).cum_max().over("session_id").cast(pl.Boolean),
            (pl.int_range(pl.len()).over("session_id") == 0).alias("is_new"),
        ).unnest("first"), "sessions",
    )  # fmt: skip

    goods = events.filter(pl.col("item_id").is_not_null(), ~pl.col("is_service"), sold | returned | ~pl.col("is_bot"))
    item_days = save(
        goods.group_by("landed_date", "event_date", "item_id", "location_id").agg(
            pl.col("quantity").filter(sold).sum().alias("units_sold"), pl.col("quantity").filter(returned).sum().alias("units_returned"),
            sold.sum().cast(pl.Int64).alias("orders"), pl.col("revenue").sum(), pl.col("revenue").filter(sold).sum().alias("gross_revenue"),
            (kind == "view_item").sum().cast(pl.Int64).alias("views"), (kind == "add_to_cart").sum().cast(pl.Int64).alias("carts"),
            ((kind == "review") & ~pl.col("is_bot")).sum().cast(pl.Int64).alias("reviews"),
            pl.col("rating").filter(~pl.col("is_bot")).count().cast(pl.Int64).alias("ratings"),
            pl.col("rating").filter(~pl.col("is_bot")).sum().alias("rating_total"),
        ).with_columns(
            unit_price=pl.when(pl.col("units_sold") > 0).then((pl.col("gross_revenue").cast(pl.Float64) / pl.col("units_sold")).round(4))
        ), "item_days",
    )  # fmt: skip

    paid = events.filter(sold, pl.col("unit_price").is_not_null()).sort("event_at", "event_id").group_by("item_id", day="landed_date").agg(
        price=pl.col("unit_price").last()
    )
    seen = events.filter(pl.col("item_id").is_not_null()).group_by("item_id").agg(
        first_seen_date=pl.col("landed_date").min(), is_service=pl.col("is_service").any()
    )
    weekly = seen.join(due, how="cross").filter(pl.col("day") > pl.col("first_seen_date")).sort("day").join_asof(
        paid.sort("day"), on="day", by="item_id", strategy="backward"
    )
    begin = seen.with_columns(day="first_seen_date").join(paid, on=["item_id", "day"], how="left")
    every = pl.concat([begin, weekly.select(begin.collect_schema().names())]).sort("item_id", "day")
    changed = pl.col("price").ne_missing(pl.col("price").shift().over("item_id")) | (pl.int_range(pl.len()).over("item_id") == 0)
    save(every.filter(changed | pl.col("day").is_in(keyframes)), "items")

    people = events.filter(pl.col("user_id").is_not_null(), ~pl.col("is_bot"))
    ordered = sold & ~pl.col("is_service")
    by_date = people.group_by("user_id", "event_date", day="landed_date").agg(
        pl.len().cast(pl.Int64).alias("events"), ordered.any().alias("bought"), pl.col("quantity").filter(ordered).sum().alias("units"),
        pl.col("revenue").sum(), pl.col("revenue").filter(sold).sum().alias("gross_revenue"), pl.col("dwell_seconds").sum().alias("browse_seconds"),
        pl.col("rating").count().cast(pl.Int64).alias("ratings"), pl.col("rating").sum().alias("rating_total"),
        *((kind == KINDS[name]).sum().cast(pl.Int64).alias(name) for name in ("refunds", "views", "searches", "wishlists", "carts", "reviews")),
    )  # fmt: skip
    daily = by_date.group_by("user_id", "day").agg(
        pl.lit(1).first().cast(pl.Int64).alias("active_days"), pl.col("bought").any().cast(pl.Int64).alias("order_days"),
        pl.col("event_date").min().alias("first_seen_date"), pl.col("event_date").max().alias("last_seen_date"),
        pl.col("event_date").filter("bought").min().alias("first_order_date"), pl.col("event_date").filter("bought").max().alias("last_order_date"),
        *(pl.col(name).sum() for name in USER_SUMS if name not in ("active_days", "order_days", "orders", "sessions")),
        *(weighted(column, life).alias(name) for name, (column, life) in USER_DECAYS.items() if column != "orders"),
    )  # fmt: skip
    key = pl.coalesce("order_id", pl.col("event_date").cast(pl.String)).alias("order_key")
    placed = people.filter(ordered).group_by("user_id", key).agg(
        pl.col("landed_date").min().alias("day"), pl.col("event_date").sort_by("landed_date", "event_date").first(), one=pl.lit(1).first()
    )
    orders = placed.group_by("user_id", "day").agg(
        pl.len().cast(pl.Int64).alias("orders"),
        *(weighted("one", life).alias(name) for name, (column, life) in USER_DECAYS.items() if column == "orders"),
    )
    begun = sessions.filter("is_new", ~pl.col("is_bot")).group_by("user_id", "day").agg(pl.len().cast(pl.Int64).alias("sessions"))
    features = save(
        _state(daily, due, "user_id", (*USER_SUMS, *USER_DECAYS), ("first_seen_date", "first_order_date"), ("last_seen_date", "last_order_date"), [orders, begun])
        .with_columns(*(faded(name, life) for name, (_, life) in USER_DECAYS.items()),
            recency_days=(pl.col("day") - pl.col("last_order_date")).dt.total_days().clip(0),
            mean_rating=pl.col("rating_total") / pl.when(pl.col("ratings") > 0).then(pl.col("ratings")),
            purchase_frequency=pl.col("orders") / ((pl.col("day") - pl.col("first_seen_date")).dt.total_days() + 1).clip(1) * 30.0,
            mean_days_between_orders=pl.when(pl.col("order_days") > 1).then(
                (pl.col("last_order_date") - pl.col("first_order_date")).dt.total_days() / (pl.col("order_days") - 1))),
        "user_features",
    )  # fmt: skip

    hour = pl.col("event_at").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/London").dt.hour()
    bands = pl.col("unit_price").cast(pl.Float64).cut(BANDS, labels=BAND_NAMES, left_closed=True).cast(pl.String)
    told = people.filter(~pl.col("is_service"), pl.col("item_id").is_not_null(), kind.is_in(["purchase", "add_to_cart", "add_to_wishlist", "view_item"]))
    folded = told.group_by(
        "user_id", "event_date", "device", "channel", day="landed_date", price_band=bands,
        hour_block=(hour // 6).replace_strict([0, 1, 2, 3], ["night", "morning", "afternoon", "evening"], return_dtype=pl.String),
    ).agg(points=kind.replace_strict(["purchase", "add_to_cart", "add_to_wishlist", "view_item"], [5, 3, 2, 1], return_dtype=pl.Int64).sum())  # fmt: skip
    long = folded.unpivot(
        ["price_band", "channel", "device", "hour_block"], index=["user_id", "day", "event_date", "points"], variable_name="preference_type",
        value_name="preference_value",
    ).filter(pl.col("preference_value").is_not_null()).group_by("user_id", "day", "preference_type", "preference_value").agg(
        weight=weighted("points", 90))  # fmt: skip
    names = ["user_id", "preference_type", "preference_value"]
    held = long.group_by(names).agg(since=pl.col("day").min())
    grid = features.select("user_id", "day").join(held, on="user_id").filter(pl.col("day") >= pl.col("since")).drop("since")
    state = grid.join(long, on=["user_id", "day", "preference_type", "preference_value"], how="left").sort(*names, "day").with_columns(
        pl.col("weight").fill_null(0.0).cum_sum().over(names)
    )
    shared = state.with_columns(
        faded("weight", 90), share=pl.col("weight") / pl.col("weight").sum().over("user_id", "day", "preference_type")
    )
    save(
        features.select("user_id", "day").join(shared, on=["user_id", "day"], how="left").with_columns(pl.col("weight", "share").fill_null(0.0)),
        "user_preferences",
    )

    daily = item_days.rename({"landed_date": "day"}).group_by("item_id", "day").agg(
        (pl.col("orders") > 0).any().cast(pl.Int64).alias("selling_days"), pl.col("event_date").min().alias("first_seen_date"),
        pl.col("event_date").max().alias("last_seen_date"), pl.col("event_date").filter(pl.col("orders") > 0).max().alias("last_sold_date"),
        *(pl.col(name).sum() for name in ITEM_SUMS if name != "selling_days"),
        *(weighted(column, life).alias(name) for name, (column, life) in ITEM_DECAYS.items()),
    )  # fmt: skip
    save(
        _state(daily, due, "item_id", (*ITEM_SUMS, *ITEM_DECAYS), ("first_seen_date",), ("last_seen_date", "last_sold_date"), [])
        .with_columns(*(faded(name, life) for name, (_, life) in ITEM_DECAYS.items()),
            mean_rating=pl.col("rating_total") / pl.when(pl.col("ratings") > 0).then(pl.col("ratings")),
            mean_unit_price=pl.col("gross_revenue").cast(pl.Float64) / pl.when(pl.col("units_sold") > 0).then(pl.col("units_sold"))),
        "item_features",
    )  # fmt: skip


def _state(daily: pl.LazyFrame, due: pl.LazyFrame, entity: str, sums: Any, earliest: Any, latest: Any, more: list[pl.LazyFrame]) -> pl.LazyFrame:
    ticks = daily.group_by(entity).agg(since=pl.col("day").min()).join(due, how="cross").filter(pl.col("day") > pl.col("since"))
    grid = pl.concat([daily.select(entity, "day"), ticks.select(entity, "day")]).unique()
    for frame in [daily, *more]:
        grid = grid.join(frame, on=[entity, "day"], how="left")
    grid = grid.sort(entity, "day")
    return grid.with_columns(
        *(pl.col(name).fill_null(0).cum_sum().over(entity) for name in sums),
        *(pl.col(name).cum_min().over(entity).forward_fill().over(entity) for name in earliest),
        *(pl.col(name).cum_max().over(entity).forward_fill().over(entity) for name in latest),
    )
