"""When models refit, what is in force, who wins, and the registry."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketing_assets.config import SourceBlock, Store
from marketing_assets.model_store import (
    ModelHistory,
    UnknownModelVersion,
    build_registry,
    compare,
    fit_days,
    held_out,
    is_better,
    model_in_force,
    model_version,
    new_fit,
    rollbacks,
)
from marketing_assets.warehouse import FittedModel, Reader, days_between, reader_over

FIRST = date(2024, 1, 1)
ANCHOR = date(2024, 1, 3)


def a_store() -> Store:
    return Store(
        name="shop",
        timezone="UTC",
        currency="EUR",
        first_day=FIRST,
        cadence_anchor=ANCHOR,
        sources={"events": SourceBlock(rows=[])},
    )


EMPTY = reader_over({}, a_store(), date(2024, 12, 31))


class RequestReader(Reader):
    """A reader whose refit_requests are given as rows."""

    def __init__(
        self, requests: list[dict[str, object]], store: Store, last_day: date, models: list[FittedModel] | None = None
    ) -> None:
        super().__init__(reader_over({}, store, last_day, models).connection if models else EMPTY.connection, store, last_day)
        schema = {
            "requested_for_date": pl.Date,
            "asset": pl.String,
            "action": pl.String,
            "model_version": pl.String,
            "verdict_id": pl.String,
            "reason": pl.String,
            "requested_at": pl.Datetime("us"),
            "landed_date": pl.Date,
        }
        self.requests = pl.DataFrame(requests, schema=schema, orient="row")

    def accepted(self, source: str, start: date | None, end: date) -> pl.DataFrame:
        assert source == "refit_requests" and start is None
        return self.requests.filter(pl.col("landed_date") <= end)


def request(
    day: date, action: str = "refit", asset: str = "user_profiles", landed: date | None = None, version: str | None = None
) -> dict[str, object]:
    return {"requested_for_date": day, "asset": asset, "action": action, "model_version": version, "landed_date": landed or day}


def fit(day: date, name: str = "m", promoted: bool = True, text: str = "{}") -> FittedModel:
    return new_fit(
        name, day, "cadence", is_promoted=promoted, model=text, model_format="json", parameters={}, features=["x"], metrics={}
    )


def test_first_cadence_and_requested_days() -> None:
    store = a_store()
    days = days_between(FIRST, FIRST + timedelta(days=16))
    reader = RequestReader([request(date(2024, 1, 5)), request(date(2024, 1, 6), asset="recommendations")], store, days[-1])
    assert fit_days(reader, days, store, "user_profiles", 7) == {
        date(2024, 1, 1): "first",
        date(2024, 1, 3): "cadence",
        date(2024, 1, 5): "request",
        date(2024, 1, 10): "cadence",
        date(2024, 1, 17): "cadence",
    }
    assert date(2024, 1, 6) in fit_days(reader, days, store, ["user_profiles", "recommendations"], 7)


def test_stop_learning_holds_until_resume_and_late_requests_change_no_past_day() -> None:
    store = a_store()
    days = days_between(FIRST, date(2024, 1, 31))
    reader = RequestReader(
        [
            request(date(2024, 1, 9), "stop_learning"),
            request(date(2024, 1, 12)),
            request(date(2024, 1, 20), "resume"),
            request(date(2024, 1, 22), landed=date(2024, 1, 25)),
            request(date(2024, 1, 26)),
        ],
        store,
        days[-1],
    )
    found = fit_days(reader, days, store, "user_profiles", 7)
    assert list(found) == [date(2024, 1, 1), date(2024, 1, 3), date(2024, 1, 24), date(2024, 1, 26), date(2024, 1, 31)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["refit", "stop_learning", "resume"]), st.integers(0, 5)), max_size=8),
    st.integers(1, 39),
)
def test_days_one_by_one_and_as_a_range_agree(rows: list[tuple[int, str, int]], cut: int) -> None:
    store = a_store()
    days = days_between(FIRST, FIRST + timedelta(days=40))
    requests = [request(FIRST + timedelta(days=d), action, landed=FIRST + timedelta(days=d + late)) for d, action, late in rows]
    whole = fit_days(RequestReader(requests, store, days[-1]), days, store, "user_profiles", 7)
    parts = {}
    for part in (days[:cut], days[cut:]):
        parts.update(fit_days(RequestReader(requests, store, part[-1]), part, store, "user_profiles", 7))
    assert whole == parts


def test_rollback_needs_a_version_and_a_known_one() -> None:
    store = a_store()
    old, new = fit(FIRST), fit(date(2024, 1, 3), text='{"a": 1}')
    day = date(2024, 1, 8)
    reader = RequestReader([request(day, "rollback", version=old.model_version)], store, day, [old, new])
    assert rollbacks(reader, [day], "user_profiles") == {day: [old.model_version]}
    history = ModelHistory(reader, day)
    before = history.in_force("m", day)
    assert before is not None and before.model_version == new.model_version
    again = history.roll_back(old.model_version, day, ["m"])
    assert (again.trigger, again.promoted_as_of, again.fitted_as_of) == ("rollback", day, FIRST)
    after = history.in_force("m", day)
    assert after is not None and after.model_version == old.model_version
    with pytest.raises(UnknownModelVersion, match="take one from model_registry"):
        history.roll_back("m@2030-01-01.00000000", day, ["m"])
    with pytest.raises(UnknownModelVersion, match="names no model_version"):
        rollbacks(RequestReader([request(day, "rollback")], store, day), [day], "user_profiles")


def test_in_force_ignores_what_was_not_promoted_and_what_an_earlier_build_of_the_window_left() -> None:
    store = a_store()
    stale = fit(date(2024, 1, 10), text='{"stale": true}')
    first = fit(FIRST)
    reader = reader_over({}, store, date(2024, 1, 20), [first, stale])
    start = date(2024, 1, 8)
    assert model_in_force(reader, [], "m", date(2024, 1, 12), start) == first
    assert model_in_force(reader, [], "other", date(2024, 1, 12), start) is None
    loser, winner = fit(date(2024, 1, 10), promoted=False, text='{"b": 1}'), fit(date(2024, 1, 12), text='{"c": 1}')
    in_force = [model_in_force(reader, [loser, winner], "m", day, start) for day in (date(2024, 1, 11), date(2024, 1, 12))]
    assert in_force == [first, winner]


def test_version_names_the_fit_and_not_the_moment() -> None:
    assert model_version("m", FIRST, {"a": 1, "b": 2}, "text") == model_version("m", FIRST, {"b": 2, "a": 1}, "text")
    assert model_version("m", FIRST, {"a": 1}, "text") != model_version("m", FIRST, {"a": 1}, "texts")
    assert model_version("m", FIRST, {}, "x").startswith("m@2024-01-01.")


def test_compare_by_hand() -> None:
    verdict = compare([0.1, 0.2, 0.3], [0.2, 0.2, 0.4], seed=1)
    assert verdict.is_better and verdict.n == 3
    assert verdict.difference == pytest.approx(-0.2 / 3)
    assert not is_better([0.2, 0.3], [0.2, 0.3], seed=1)  # a tie keeps the champion
    assert not is_better([], [], seed=1)  # nothing to go by keeps it too
    with pytest.raises(ValueError, match="one loss per unit"):
        compare([1.0], [1.0, 2.0], seed=1)
    with pytest.raises(ValueError, match="not finite"):
        compare([np.nan], [1.0], seed=1)


def test_compare_interval_covers_a_known_difference() -> None:
    generator = np.random.default_rng(7)
    hits = 0
    for trial in range(100):
        champion = generator.gamma(2.0, 1.0, 300)
        verdict = compare(champion - 0.1 + generator.normal(0, 0.5, 300), champion, seed=trial)
        hits += verdict.low <= -0.1 <= verdict.high
    assert 80 <= hits <= 98


def test_held_out_is_a_stable_share_of_users() -> None:
    pytest.importorskip("marketing_assets.assignment")
    ids = pl.Series([f"u{i}" for i in range(4000)])
    chosen = held_out(ids)
    assert 0.12 < float(chosen.mean() or 0) < 0.18
    assert held_out(ids.reverse()).reverse().equals(chosen)
    assert held_out(pl.Series([None], dtype=pl.String)).to_list() == [False]


def test_registry_has_a_row_per_event_of_the_window() -> None:
    store = a_store()
    models = [fit(FIRST), fit(date(2024, 1, 3), promoted=False, text='{"b": 1}'), fit(date(2024, 1, 5), name="n")]
    reader = reader_over({}, store, date(2024, 1, 4), models)
    built = build_registry(reader, days_between(FIRST, date(2024, 1, 4)), store)
    rows = built.tables["model_registry"]
    assert isinstance(rows, pl.DataFrame)
    assert rows.select("as_of_date", "model_name", "is_promoted").rows() == [(FIRST, "m", True), (date(2024, 1, 3), "m", False)]
    assert built.metrics["model_registry"][FIRST] == {"fits": 1.0, "promoted": 1.0}
