"""What the page says: numbers and notes in the shop's language and currency, and the pieces it is put together from."""

from __future__ import annotations

import re
from datetime import date

from marketing_assets.config import REPOSITORY_ROOT
from marketing_assets.report.pieces import Cell, Chart, Grid, Notes, Section, Tile
from marketing_assets.report.plan_charts import limit_sentence
from marketing_assets.report.words import NOTES, TERMS, Words
from marketing_assets_tests.test_report import page_of, shop


def test_limits_are_priced_in_words() -> None:
    words, store = Words(shop()), shop()
    base = {"limit_value": 100.0, "used_value": 100.0, "shadow_price": 3.2, "relaxation_needed": 0.0, "unit": "money"}
    assert (
        limit_sentence({**base, "constraint_name": "budget"}, store, words)
        == "Daily budget (€100.00) is used up. One more EUR would bring €3.20."
    )
    asked = {**base, "constraint_name": "target_conversions", "unit": "conversions", "limit_value": 5.0, "shadow_price": -1.5}
    assert "asking for one less would be worth €1.50" in limit_sentence(asked, store, words)
    assert "gave way by 7" in limit_sentence(
        {**base, "constraint_name": "campaign_budget:c1", "relaxation_needed": 7.0}, store, words
    )
    missed = {**asked, "relaxation_needed": 2.0}
    assert "gave way by 2" in limit_sentence(missed, store, words)
    capped = shop(ad_planning={"most_per_conversion": 1.5})
    assert limit_sentence(missed, capped, words).endswith("(5): 2 of them are not sought, since one more would cost over €1.50, or cannot be had.")
    assert "gave way by 2" in limit_sentence({**missed, "shadow_price": -9.0}, capped, words), "out of reach at any price"
    supply = {**base, "constraint_name": "availability:champions:home:19", "unit": "impressions"}
    assert limit_sentence(supply, store, words).startswith("Impressions on offer to champions on home at 19:00 (100) is used up")


def test_numbers_in_the_shops_currency_and_language() -> None:
    english, chinese, yen = Words(shop()), Words(shop(language="zh", currency="CNY")), Words(shop(currency="JPY"))
    assert english.money(-1234.5) == "−€1,234" and english.money(12.3) == "€12.30" and yen.money(12.3) == "¥12"
    assert english.rate(0.0345) == "3.45\u00a0%" and chinese.rate(0.345) == "34.5%" and english.signed(-0.034) == "−3.4\u00a0%"
    assert english.number(0.01234) == "0.0123" and english.number(1234567) == "1,234,567" and english.number(None) == "–"
    assert english.day(date(2026, 10, 5)) == "Mon 5 Oct 2026" and chinese.day(date(2026, 10, 5)) == "2026年10月5日 周一"
    assert all(len(pair) == 2 and all(pair) for pair in TERMS.values())


def test_what_is_watched_and_who_is_meant_is_said_in_words() -> None:
    """A director reads no code; what a shop named itself stays as it wrote it."""
    english, chinese = Words(shop()), Words(shop(language="zh"))
    watched = "ads.ctr_calibration_ratio[audience=at_risk]"
    assert english.series(watched) == "ads: clicks predicted / observed (audience at_risk)"
    assert chinese.series(watched) == "广告：预测/实际点击（受众 有流失风险）"
    assert english.series("learning[user_profiles]") == "learning (user profiles)" and chinese.series("items.reject_rate") == "商品：被拒行占比"
    assert english.series("profiles.preferred_category_rate") == "profiles: looks in the preferred category"
    assert chinese.term("hit_rate_at_10") == "命中率@10" and english.term("ndcg_at_10") == "nDCG@10"
    assert chinese.audience("my_regulars") == "my_regulars" and english.audience("new_users") == "new_users"


def test_axes_write_days_as_the_reader_does() -> None:
    assert "%-m月%-d日" in page_of(shop(language="zh")) and "%-d %b" in page_of(shop())


def test_a_half_without_a_neighbour_takes_the_row() -> None:
    grid = Grid("g", ["a"], [[Cell("1")]])

    def chart(name: str, is_wide: bool = False) -> Chart:
        return Chart(name, name, name, {}, {}, grid, is_wide=is_wide)

    section = Section("s", "s", "", [chart("a"), chart("b"), chart("c"), grid, Notes("n", []), chart("d", is_wide=True)])
    assert [is_wide for _, is_wide in section.placed] == [False, False, True, True, True, True]


def test_sparkline_skips_gaps_and_needs_three_points() -> None:
    tile = Tile("l", "1", "", "plain", "", "", [1.0, None, 3.0, 2.0])
    assert tile.points == "0.0,22.0 66.7,2.0 100.0,12.0"
    assert Tile("l", "1", "", "plain", "", "", [1.0, None, 2.0]).points == ""


def test_notes_of_a_plan_are_said_in_chinese() -> None:
    """They are written in English where they arise; one reworded there would come through untranslated."""
    folder = REPOSITORY_ROOT / "marketing_assets" / "ad_planning"
    written = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for pattern, _ in NOTES:
        for part in re.split(r"\(\\S\+\)", pattern.replace("\\.", ".")):
            assert part.strip() in written, f"{part!r} is no longer what a plan's note says"
    chinese = Words(shop(language="zh"))
    note = "no plan meets every limit; relaxed: budget +2.00. By itself would do: budget +2.00; whole impressions change the value by -0.5"
    assert chinese.note(note) == "没有计划能满足所有限制；已放宽：budget +2.00。单独放宽其一即可：budget +2.00。"
    assert chinese.note("0.50 conversions of the target are not sought: one more would cost over 7.5 of value, or cannot be had") == (
        "目标中有 0.50 次转化未争取：再多一次的代价会超过 7.5，或无法获得。"
    )
    assert chinese.note("whole impressions change the value by -0.5") == "", "noise to whoever reads the page"
    assert Words(shop()).note("no cell is worth anything") == "No cell is worth anything."
