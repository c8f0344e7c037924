"""File sets -> source blocks: which input a file is, and what else rests on the same files.

What belongs here: deciding what a file is. What does not: single columns and their expressions (columns.py), what holds for the whole
shop (init.py), or the text of store.yaml (writing.py).
"""

from __future__ import annotations

import re
from datetime import timedelta

from marketing_assets.onboarding import names
from marketing_assets.onboarding.columns import (
    FITS,
    Block,
    Mapped,
    column_of,
    day_expression,
    fill,
    find_time,
    id_expression,
    is_count,
    is_flag,
    is_id,
    is_number,
    is_prose,
    is_rating,
    is_type,
    number_expression,
    pick,
    time_expression,
)
from marketing_assets.onboarding.grain import amount_is_of, is_of_items, is_unique, of_whole_orders
from marketing_assets.onboarding.looking import Column, FileSet
from marketing_assets.onboarding.nested import BESIDE, literal
from marketing_assets.onboarding.plans import item_drivers, market_days
from marketing_assets.onboarding.values import day_of
from marketing_assets.schemas import INPUTS


def same_names(files: FileSet) -> Block | None:
    """Files that already speak the contract: every required column of one input under its own name."""
    own = {column.name.lower(): column for column in files.columns}
    best: tuple[tuple[bool, int], str] | None = None
    for source in INPUTS.values():
        if source.name in ("refit_requests", "plan_overrides"):
            continue
        one_of = not source.one_of or any(name in own for name in source.one_of)
        is_there = all(name in own for name in source.required if (source.name, name) not in (("market_days", "known_at"),))
        if not is_there or not one_of:
            continue
        shared = [name for name in source.columns if name in own]
        named = source.name in re.split(r"[^a-z_]+", files.pattern.lower())
        if (named and len(shared) >= len(source.required)) or (len(shared) >= 3 and len(shared) >= 0.7 * len(own)):
            rank = (named, len(shared))
            if best is None or rank > best[0]:
                best = (rank, source.name)
    if best is None:
        return None
    source = INPUTS[best[1]]
    kinds = {name: own[name].profile for name in source.columns if name in own}
    if any(source.columns[name] in ("instant", "day") and profile.time_format for name, profile in kinds.items()):
        return None
    if "event_type" in source.columns and any(names.event_type_of(value) != value for value in kinds["event_type"].values[:8]):
        return None
    block = Block(source.name, files)
    block.constant("*", "*", "the columns are called as the input's")
    block.used = {own[name].name for name in source.columns if name in own}
    return block


def ad_reports(files: FileSet) -> Block | None:
    block = Block("ad_reports", files)
    day = pick(files, names.AD_REPORTS["date"], lambda profile: profile.is_temporal)
    if day is None:
        return None
    block.add("date", day, day_expression(day))
    fill(block, {name: known for name, known in names.AD_REPORTS.items() if name != "date"})
    _without_sums(block)
    return block if all(block.has(name) for name in INPUTS["ad_reports"].required) else None


def _without_sums(block: Block) -> None:
    """Leaves out rows that a report adds up below the others."""
    said = [f"NOT starts_with(coalesce({block.files.column(name).expression}, ''), {literal(word)})" for name, word in block.files.sums]
    if said:
        block.where, block.where_comment = " AND ".join(said), "rows that add up the others"


def impressions(files: FileSet) -> Block | None:
    time = find_time(files, names.SHOWN)
    click = pick(files.lines, names.IMPRESSIONS["is_clicked"], is_flag)
    if time is None or click is None:
        return None
    block = Block("impressions", files)
    block.add("shown_at", time[0], time_expression(*time))
    if time[1]:
        block.used.add(time[1].name)
    fill(block, names.IMPRESSIONS)
    if not block.has("item_id") and not block.has("creative_id"):
        return None
    if not block.has("placement_id"):
        position = block.expression("position")
        text = f"'position_' || {position}" if position else "'all'"
        block.constant(
            "placement_id",
            text,
            "no column of placements: " + ("each position counts as one" if position else "all are taken as one"),
        )
    if not block.has("logging_propensity"):
        block.notes.append("no logging_propensity: rates are learnt, but policies cannot be valued off-line")
    return block


def items(files: FileSet) -> Block | None:
    """A catalogue: one row per item, or per item and place where it says what is in stock there, nobody doing anything."""
    if pick(files, names.EVENTS["user_id"], FITS["user_id"]) or pick(files, names.EVENTS["order_id"], is_id):
        return None
    if pick(files, names.EVENTS["event_type"], is_type):
        return None
    if pick(files, names.EVENTS["quantity"], is_count) and not files.says(names.CATALOGUES):  # a quantity there is in stock
        return None
    item = pick(files, names.ITEMS["item_id"], lambda profile: is_id(profile) and profile.is_key)
    if item is None and pick(files, names.ITEMS["title"], FITS["title"]) is not None:
        item = next((column for column in files.columns if _names_things(column) and column.profile.is_key), None)
    block = Block("items", files)
    if item is None:
        item = pick(files, names.ITEMS["item_id"], FITS["item_id"])
        place = pick(files, names.STOCK_PLACES, FITS["location_id"])
        stock = pick(files, names.ITEMS["stock_on_hand"], FITS["stock_on_hand"])
        if item is None or place is None or stock is None or not is_unique(files, item, place):
            return None
        block.add("location_id", place, None, "an item's stock is the sum over its places; call them as in events")
    block.add("item_id", item, id_expression(item))
    fill(block, names.ITEMS)
    known_only = len(block.columns) == 1 and (find_time(files, names.TIMES) is not None or len(files.columns) == 1)
    if known_only or (names.plain(item.name) == "id" and len(block.columns) < 3):
        return None
    for column in files.columns:
        profile = column.profile
        told = min(profile.count, item.profile.distinct)
        if column.name not in block.used and profile.kind == "text" and 1 < profile.distinct <= 0.7 * told and not block.has("category"):
            block.add("category", column, None, f"a guess: {profile.distinct} different values among {told} items")
    return block


def contacts(files: FileSet) -> Block | None:
    block = Block("contacts", files)
    fill(block, names.CONTACTS, ("email", "phone", "country", "has_marketing_consent"))
    user = pick(files, names.CONTACTS["user_id"], lambda profile: is_id(profile) and profile.is_key, block.used)
    if user is None or not (block.has("email") or block.has("phone")) or pick(files, names.EVENTS["item_id"], is_id, {user.name}):
        return None
    block.columns.insert(0, Mapped("user_id", id_expression(user)))
    block.used.add(user.name)
    return block


def campaigns(files: FileSet) -> Block | None:
    campaign = pick(files, names.CAMPAIGNS["campaign_id"], lambda profile: is_id(profile) and profile.is_key)
    if campaign is None:
        return None
    block = Block("campaigns", files)
    block.add("campaign_id", campaign, id_expression(campaign))
    fill(block, names.CAMPAIGNS)
    is_vague = names.plain(campaign.name) == "id" and not block.has("budget")
    if is_vague and files.says(names.PLANS | names.CALENDARS):
        return None
    return block if len(block.columns) >= 2 and (block.has("budget") or block.has("start_date")) else None


def events(files: FileSet) -> Block | None:
    time = find_time(files, names.TIMES)
    if time is None:
        return None
    block = Block("events", files)
    unsure = "day and month could be the other way round: check" if time[0].profile.is_month_first_unsure else ""
    block.add("event_at", time[0], time_expression(*time), unsure)
    if time[1]:
        block.used.add(time[1].name)
    kind = pick(files, names.EVENTS["event_type"], is_type, block.used)
    if kind is not None:
        block.used.add(kind.name)
    known = {name: listed for name, listed in names.EVENTS.items() if name != "event_type"}
    if kind is None and pick(files, names.EVENTS["review_text"], is_prose) is None:
        known = {name: listed for name, listed in known.items() if name not in ("rating", "review_text")} | (
            {"rating": names.EVENTS["rating"]}
            if pick(files, ["rating", "overall", "stars", "star_rating", "review_score"], is_rating)
            else {}
        )
    _fuller_user(block)
    _repeated_item(block)
    aside = of_whole_orders(files, pick(files, names.EVENTS["order_id"], is_id, block.used), column_of(block, "item_id"))
    fill(block, known, aside=aside)
    _sessions_of_one(block)
    if not block.has("order_id"):
        _order_names(block)
    _ids_of_lines(block, kind is None)
    if not block.has("quantity"):
        counted = [
            column
            for column in files.lines.columns
            if column.name not in block.used | aside and is_count(column.profile) and names.plain(column.name).startswith(names.COUNTS)
        ]
        if counted:
            block.add("quantity", counted[0], number_expression(counted[0]), "a guess")
    total = _price_of_line(block) or (pick(files.lines, names.TOTALS, is_number, block.used | aside) if not block.has("unit_price") else None)
    _only_places(block, total)
    signs = [name for name in ("quantity", "unit_price", "order_id", "rating") if block.has(name)] + (["total"] if total else [])
    spoken = names.event_type_in(files.pattern)
    if not block.has("item_id") and not block.has("user_id"):
        return None
    if not block.has("item_id") and block.has("user_id"):
        _guess_item(block)
    if not signs and kind is None and spoken is None and not (block.has("item_id") and block.has("user_id")):
        return None
    if total is not None:
        _total(block, total)
    _event_type(block, kind, spoken)
    if not block.has("item_id"):
        block.constant(
            "item_id", "'all'", "no column of items: profiles and life-time value can be told, lists and item forecasts not"
        )
    if not block.has("user_id"):
        block.notes.append("no column of users: demand can be forecast, profiles and lists cannot be made")
    if files.unroll is not None:
        _with_elements(block, kind)
    order = list(INPUTS["events"].columns)
    block.columns.sort(key=lambda mapped: order.index(mapped.contract))
    return block


def _repeated_item(block: Block) -> None:
    """What is bought is bought again: where the column with the likeliest name is another in every row, it numbers the rows."""
    lines = block.files.lines
    named = pick(lines, names.EVENTS["item_id"], FITS["item_id"], block.used)
    if named is not None and named.profile.is_unique:
        named = pick(lines, names.EVENTS["item_id"], lambda profile: FITS["item_id"](profile) and not profile.is_unique, block.used) or named
    if named is not None:
        block.add("item_id", named, id_expression(named))


def _price_of_line(block: Block) -> Column | None:
    """The column taken for the price of a unit, taken back, where it is the amount of a line."""
    item, quantity, price = (column_of(block, contract) for contract in ("item_id", "quantity", "unit_price"))
    if item is None or quantity is None or price is None or amount_is_of(block.files, item, quantity, price) != "line":
        return None
    block.columns = [mapped for mapped in block.columns if mapped.contract != "unit_price"]
    return price


def _names_things(column: Column) -> bool:
    """Whether a column's name ends as ids do and its values may be ids."""
    named = re.search(r"(_id|_code|_no|_key)$", names.plain(column.name)) is not None
    return named and is_id(column.profile) and column.profile.distinct > 1


def _fuller_user(block: Block) -> None:
    """Where people are known in few rows and their devices in nearly all, rows are of the devices: a person's way would be torn in two."""
    named = pick(block.files, names.EVENTS["user_id"], FITS["user_id"], block.used)
    if named is None or named.profile.filled > 0.6:
        return
    taken = block.used | {named.name}
    other = pick(block.files, names.EVENTS["user_id"], lambda profile: FITS["user_id"](profile) and profile.filled > 0.95, taken)
    if other is not None:
        joined = "below, identities join" if block.files.is_dated else "an input identities can join"
        comment = f"{named.name} is empty in {1 - named.profile.filled:.0%} of the rows; {joined} what is of one person"
        block.add("user_id", other, id_expression(other, is_user=True), comment)
        block.person = named


def _sessions_of_one(block: Block) -> None:
    """A session that is numbered user by user is one only together with the user."""
    column = next((one for one in block.files.columns if one.name in block.used and one.expression == block.expression("session_id")), None)
    user = block.expression("user_id")
    if column is None or user is None or not names.plain(column.name).endswith(names.SESSIONS_OF_ONE):
        return
    text = f"CAST({column.expression} AS VARCHAR)" if column.profile.native else column.expression
    block.columns = [mapped for mapped in block.columns if mapped.contract != "session_id"]
    block.constant("session_id", f"{user} || '.' || {text}", "numbered user by user")


def _order_names(block: Block) -> None:
    """Shops that call an order '#1001' by a column 'Name'."""
    for column in block.files.columns:
        if names.plain(column.name) == "name" and all(
            re.fullmatch(r"#?[A-Z]{0,4}-?\d+", value) for value in column.profile.values
        ):
            block.add("order_id", column, None, "a guess: it numbers orders, names nothing")
            return


def _ids_of_lines(block: Block, are_orders: bool) -> None:
    """Of orders and their lines, what is just called id: that of the order beside the lines, that of the line in them."""
    if not block.files.has_lines:
        return
    for column in block.files.columns:
        if column.name in block.used or not is_id(column.profile):
            continue
        if column.name == "id" and column.is_element and not block.has("event_id") and column.profile.is_unique:
            block.add("event_id", column, id_expression(column), "a line that is delivered again counts once")
        elif column.name in ("id", f"id {BESIDE}") and not column.is_element and are_orders and not block.has("order_id"):
            block.add("order_id", column, id_expression(column), "a guess")


def _with_elements(block: Block, kind: Column | None) -> None:
    """Leaves out what has no element: an order without lines, a look at a page that shows nothing."""
    text = "source_element IS NOT NULL"
    if kind is not None:
        searches = [literal(value) for value in kind.profile.values if names.event_type_of(value) == "search"]
        text = f"({text} OR {kind.expression} IN ({', '.join(searches)}))" if searches else text
    block.where = text if block.where is None else f"{block.where} AND {text}"
    block.where_comment = "; ".join(filter(None, [block.where_comment, f"without {block.files.unroll} there is no item"]))


def _guess_item(block: Block) -> None:
    """A column named *_id that repeats and means nothing else is the thing that was bought or seen."""
    for column in block.files.lines.columns:
        named = re.search(r"(_id|_code|_no|_key)$", names.plain(column.name))
        if named and column.name not in block.used and is_id(column.profile) and column.profile.distinct > 1:
            block.add("item_id", column, id_expression(column), "a guess from the name")
            return


def _only_places(block: Block, total: Column | None) -> None:
    """Daily totals per store, nobody and nothing named: the store is what is forecast."""
    place = block.expression("location_id")
    if place is None or block.has("item_id") or block.has("user_id") or (total is None and not block.has("quantity")):
        return
    block.columns = [mapped for mapped in block.columns if mapped.contract != "location_id"]
    block.constant("item_id", place, "totals per place, no items: each place is forecast as one series")


def _total(block: Block, total: Column) -> None:
    block.used.add(total.name)
    number = number_expression(total)
    value = f"TRY_CAST({number} AS DOUBLE)"
    quantity = block.expression("quantity")
    if quantity is None and not block.has("user_id"):
        # a total alone: counted in whole units of money, so that there is something to forecast
        block.constant("quantity", f"CAST(round({value}) AS BIGINT)", "only amounts are given: one unit is one unit of money")
        block.constant("unit_price", "1", "")
        block.where, block.where_comment = f"{value} > 0", "days without sales have no row"
        return
    if quantity is None:
        block.constant("unit_price", number, "the amount of the row; how many were bought is not given")
        return
    item, pieces = column_of(block, "item_id"), column_of(block, "quantity")
    if item is not None and pieces is not None and amount_is_of(block.files, item, pieces, total) == "unit":
        block.constant("unit_price", number, "the same whatever the quantity, so of a unit")
    else:
        block.constant("unit_price", f"abs({value} / nullif(TRY_CAST({quantity} AS DOUBLE), 0))", f"{total.name} over quantity")


def _event_type(block: Block, kind: Column | None, spoken: str | None) -> None:
    negative = block.has("quantity") and any(
        column.profile.least < 0
        for column in block.files.columns
        if column.name in block.used and column.expression == block.expression("quantity")
    )
    quantity = f"TRY_CAST({block.expression('quantity')} AS DOUBLE) < 0"
    if kind is None:
        if block.has("quantity") or block.has("unit_price") or block.has("order_id"):
            told = spoken if spoken in ("refund", "purchase") else "purchase"
            if negative and told == "purchase":
                block.constant(
                    "event_type",
                    f"CASE WHEN {quantity} THEN 'refund' ELSE 'purchase' END",
                    "negative quantities are taken as refunds",
                )
            else:
                block.constant("event_type", f"'{told}'", f"taken from the file's name and columns: every row is a {told}")
        elif block.has("rating"):
            block.constant("event_type", "'review'", "every row is a review")
        else:
            told = spoken or "view_item"
            why = "from the file's name" if spoken else "nothing says what users did: put 'purchase' if these are sales"
            block.constant("event_type", f"'{told}'", why)
        return
    text = kind.expression if not kind.profile.native or kind.profile.kind == "text" else f"CAST({kind.expression} AS VARCHAR)"
    meanings = {value: names.event_type_of(value) for value in kind.profile.values}
    cases: dict[str, list[str]] = {}
    for value, meaning in meanings.items():
        if meaning and meaning != value:
            cases.setdefault(meaning, []).append(literal(value))
    parts = [
        f"WHEN {text} IN ({', '.join(values)}) THEN '{meaning}'"
        if len(values) > 1
        else f"WHEN {text} = {values[0]} THEN '{meaning}'"
        for meaning, values in cases.items()
    ]
    unknown = [value for value, meaning in meanings.items() if meaning is None]
    comment = f"not understood, so refused by name: {', '.join(unknown[:8])}" if unknown else ""
    block.constant("event_type", f"CASE {' '.join(parts)} ELSE {text} END" if parts else text, comment)
    if out := [value for value, meaning in meanings.items() if meaning == ""]:
        block.where = f"{text} NOT IN ({', '.join(map(literal, out))})"
        block.where_comment = "these have no counterpart here"
    sells = {meaning for meaning in meanings.values()} & {"purchase", "refund"}
    if sells and not block.has("quantity"):
        block.constant("quantity", f"CASE WHEN {_sales(text, meanings)} THEN 1 END", "how many is not given: one per purchase")


def _sales(text: str, meanings: dict[str, str | None]) -> str:
    values = [literal(value) for value, meaning in meanings.items() if meaning in ("purchase", "refund")]
    return f"{text} = {values[0]}" if len(values) == 1 else f"{text} IN ({', '.join(values)})"


def items_beside(block: Block) -> Block | None:
    """What an event export says about items, where it says more than their ids."""
    item = block.expression("item_id")
    if item is None or item == "'all'":
        return None
    made = Block("items", block.files, is_beside=True)
    made.constant("item_id", item, "")
    only = ["title", "category", "brand", *(("unit_price",) if block.files.is_dated else ())]
    used = block.used - {column.name for column in block.files.columns if column.expression == block.expression("unit_price")}
    made.used = set(used)
    said = column_of(block, "item_id")
    words = [column for column in block.files.columns if column.profile.kind in ("text", "integer") and column.name not in block.used]
    others = {column.name for column in words if said is not None and not is_of_items(block.files, said, column)}
    fill(made, names.ITEMS, only, aside=others)
    found = [mapped.contract for mapped in made.columns[1:]]
    if not {"title", "category", "brand"} & set(found):
        return None
    _fuller_category(made)
    made.columns = [made.columns[0], *sorted(made.columns[1:], key=lambda mapped: only.index(mapped.contract))]
    made.used -= used
    block.used |= made.used
    wanted = ["source_element IS NOT NULL"] if block.files.unroll is not None else []
    if (price := made.expression("unit_price")) is not None:
        wanted.append(f"TRY_CAST({price} AS DOUBLE) > 0")
    made.where = " AND ".join(wanted) or None
    return made


def _fuller_category(block: Block) -> None:
    """A category that is often empty is filled up from another column of categories."""
    first = next((column for column in block.files.columns if column.expression == block.expression("category")), None)
    if first is None or first.profile.filled > 0.95:
        return
    other = pick(
        block.files,
        names.ITEMS["category"],
        lambda profile: is_id(profile) and profile.filled > first.profile.filled,
        block.used,
    )
    if other is not None:
        block.used.add(other.name)
        second = f"CAST({other.expression} AS VARCHAR)" if other.profile.native else other.expression
        block.columns = [
            Mapped(
                "category",
                f"coalesce({first.expression}, {second})",
                f"{first.name} is empty in {1 - first.profile.filled:.0%} of the rows",
            )
            if mapped.contract == "category"
            else mapped
            for mapped in block.columns
        ]


def identities_beside(block: Block) -> Block | None:
    """Who uses a device, where an event export says so in some rows; only of files by day, since it is not known before it is said."""
    device = block.expression("user_id")
    if block.person is None or device is None or not block.files.is_dated:
        return None
    made = Block("identities", block.files, is_beside=True)
    made.constant("from_user_id", device, "")
    made.add("user_id", block.person, id_expression(block.person, is_user=True))
    made.where = f"{device} IS NOT NULL AND {made.expression('user_id')} IS NOT NULL"
    made.where_comment = "rows that say who it is"
    block.used |= made.used
    return made


def drivers_beside(block: Block) -> Block | None:
    """Promotions and closed days that an event export carries row by row."""
    if block.has("user_id") or not block.has("item_id"):
        return None
    made = Block("item_drivers", block.files, is_beside=True)
    made.constant("item_id", block.expression("item_id") or "", "")
    time = block.expression("event_at") or ""
    made.constant("date", f"CAST({time} AS DATE)", "")
    made.constant("known_at", time, "known on the day itself; earlier, where the plan of promotions says so")
    made.used = set(block.used)
    before = len(made.columns)
    fill(made, names.DRIVERS)
    block.used |= made.used
    return made if len(made.columns) > before else None


def of_its_days(files: FileSet) -> FileSet:
    """The files, taken as one where the day in their names is not the day of their rows: an export of all orders so far is named after today."""
    time = find_time(files, names.SHOWN) if files.is_dated else None
    if time is None:
        return files
    column, days = time[0], set(files.days)
    told = [day for row in files.rows if (day := day_of(row.get(column.name), column.profile)) is not None]
    # a file of a day may hold its evening in another zone, or have been written in the night after it
    near = sum(not days.isdisjoint((day - timedelta(days=1), day, day + timedelta(days=1))) for day in told)
    if near >= 0.5 * len(told):
        return files
    return files.as_one("the day in the name is not the day of the rows, so each row lands on its own day")


def blocks_of(files: FileSet) -> list[Block]:
    """What a file set is: one block, with others that rest on the same files behind it; [] where it is nothing known."""
    whole = (same_names, ad_reports, impressions, campaigns, contacts, item_drivers, market_days, items)
    for recognise in (impressions,) if files.has_lines else whole:
        block = recognise(files)
        if block is not None:
            return [block]
    block = events(files)
    if block is None:
        return []
    return [block, *(made for made in (items_beside(block), drivers_beside(block), identities_beside(block)) if made is not None)]
