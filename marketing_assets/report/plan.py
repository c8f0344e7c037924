"""The section on tomorrow's ad plan: what to buy where and when, what more money would bring, what holds the plan back.

What belongs here: wording and drawing ad_plan and the tables that explain it. What does not: planning (ad_planning).

Reads ad_plan, ad_plan_runs, ad_plan_constraints, ad_plan_scenarios, plan_diff and campaign_proposals of the day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.report.figures import PLAN_SOURCES
from marketing_assets.report.needs import lacks
from marketing_assets.report.pieces import Action, Block, Notes, Section
from marketing_assets.report.plan_charts import (
    budget_chart,
    changes_table,
    heat_chart,
    limit_name,
    limit_sentence,
    limits_table,
    proposals_table,
    totals_table,
    value_name,
)
from marketing_assets.report.words import Words
from marketing_assets.warehouse import Reader

MOST_LIMITS = 8
MOST_CELLS = 3
SMALLEST_GAP = 1e-4
USED_UP = 0.99
"""Share of the budget that must be spent for its last money to be spoken of."""


@dataclass(frozen=True)
class PlanFacts:
    """The day's plan and what explains it."""

    plan: pl.DataFrame
    run: dict[str, Any] | None
    limits: pl.DataFrame
    scenarios: pl.DataFrame
    changes: pl.DataFrame
    proposals: pl.DataFrame
    is_approved: bool | None
    approved_by: str | None


def plan_facts(reader: Reader, day: date, store: Store) -> PlanFacts:
    from marketing_assets.exports import is_plan_approved, read_approval

    def table(name: str) -> pl.DataFrame:
        return reader.window(name, day, day)

    runs = table("ad_plan_runs")
    is_approved = is_plan_approved(reader, day, store) if store.ad_planning.needs_approval else None
    approval = read_approval(store, day) if is_approved else None
    return PlanFacts(
        table("ad_plan"),
        runs.row(0, named=True) if runs.height else None,
        table("ad_plan_constraints"),
        table("ad_plan_scenarios").sort("budget"),
        table("plan_diff"),
        table("campaign_proposals"),
        is_approved,
        approval.approved_by if approval else None,
    )


def said_note(note: str | None, words: Words) -> str:
    """A run's note as a sentence, limits by name: 'budget +2.00' -> 'daily budget +2.00'."""
    amount = re.compile(r"\b([a-z_]+(?::[^\s,;]+)?) ([+-])(\d+\.\d\d)\b", re.ASCII)
    return amount.sub(lambda found: f"{limit_name(found[1], words)} {found[2].replace('-', '−')}{found[3]}", words.note(note or ""))


def plan_actions(facts: PlanFacts, day: date, store: Store, words: Words) -> list[Action]:
    """What the plan asks of a person today."""
    run = facts.run
    if run is None or run["status"] == "no_inputs":
        return []
    if run["status"] == "refused":
        return [Action(words("No plan for tomorrow. {note}", "明天没有计划。{note}", note=said_note(run["note"], words)), "plan", "bad")]
    plan = facts.plan
    if plan.is_empty():
        none = words("No ads are planned for tomorrow. {note}", "明天没有广告计划。{note}", note=said_note(run["note"], words))
        return [Action(none, "plan", "warn")]
    spend, tomorrow = plan["planned_spend"].sum(), plan["plan_date"][0]
    text = words(
        "Run the plan for {day}: {spend} over {cells} cells should bring {conversions} conversions and {value} of {name}.",
        "执行 {day} 的计划：{cells} 个投放单元共 {spend}，预计 {conversions} 次转化，{name} {value}。",
        day=words.day(tomorrow),
        spend=words.money(spend),
        cells=words.number(plan.height),
        conversions=words.number(plan["expected_conversions"].sum()),
        value=words.money(plan["expected_revenue"].sum()),
        name=value_name(store, words),
    )
    if store.ad_planning.value == "conversions":
        text = words(
            "Run the plan for {day}: {spend} over {cells} cells should bring {conversions} conversions.",
            "执行 {day} 的计划：{cells} 个投放单元共 {spend}，预计 {conversions} 次转化。",
            day=words.day(tomorrow),
            spend=words.money(spend),
            cells=words.number(plan.height),
            conversions=words.number(plan["expected_conversions"].sum()),
        )
    actions = [Action(text, "plan", "warn" if run["is_relaxed"] else "plain")]
    if facts.is_approved is False:
        actions.insert(
            0,
            Action(
                words(
                    "The plan waits for approval: run “marketing approve --day {day} --by NAME” before it can be exported.",
                    "计划待批准：导出前请运行“marketing approve --day {day} --by NAME”。",
                    day=day,
                ),
                "plan",
                "warn",
            ),
        )
    current = facts.scenarios.filter("is_current")
    if current.height and store.ad_planning.value != "conversions":
        marginal, budget = float(current["marginal_revenue"][0]), float(current["budget"][0])
        if marginal >= 1.2:
            actions.append(
                Action(
                    words(
                        "Consider a larger ad budget: at {budget} a day one more {c} still brings {value} of {name}.",
                        "可考虑增加预算：每日 {budget} 时，每多投 1 {c} 仍可带来 {value} {name}。",
                        budget=words.money(budget),
                        c=store.currency,
                        value=words.money(marginal),
                        name=value_name(store, words),
                    ),
                    "plan",
                    "good",
                )
            )
        elif marginal < 1 and spend > USED_UP * budget:
            actions.append(
                Action(
                    words(
                        "The last {c} of the ad budget brings only {value} of {name}: a smaller budget would lose little.",
                        "预算的最后 1 {c} 仅带来 {value} {name}：减少预算损失很小。",
                        c=store.currency,
                        value=words.money(marginal),
                        name=value_name(store, words),
                    ),
                    "plan",
                    "warn",
                )
            )
    return actions


def plan_section(facts: PlanFacts, store: Store, words: Words) -> Section:
    title = words("Tomorrow's ad plan", "明日广告计划")
    missing = lacks(store, words, PLAN_SOURCES)
    if missing:
        return Section("plan", title, missing=missing)
    if facts.run is None or facts.plan.is_empty():
        note = said_note(facts.run["note"], words) if facts.run else ""
        return Section("plan", title, words("There is no plan for tomorrow. {note}", "明天没有计划。{note}", note=note))
    run, plan = facts.run, facts.plan
    lead = words("Status: {status}.", "状态：{status}。", status=words.term(run["status"]))
    if run["gap"] is not None:
        if run["gap"] < SMALLEST_GAP:
            lead += words(" Proven: no plan within these limits is better.", "已证明：在这些限制下没有更好的计划。")
        else:
            gap = words.rate(run["gap"], 2)
            lead += words(" Proven within {gap} of the best possible plan.", "与理论最优相差不超过 {gap}。", gap=gap)
    if run["probability_of_target"] is not None and store.ad_planning.target_conversions > 0:
        lead += words(
            " The target of {n} conversions is met with probability {p}.",
            "达成 {n} 次转化目标的概率为 {p}。",
            n=words.number(store.ad_planning.target_conversions),
            p=words.rate(run["probability_of_target"], 0),
        )
    if facts.is_approved is not None:
        approved = words(" Approved by {name}.", "已由 {name} 批准。", name=facts.approved_by or "?")
        lead += approved if facts.is_approved else words(" Not approved yet.", "尚未批准。")
    if note := said_note(run["note"], words):
        lead += words(" {note}", "{note}", note=note)
    blocks: list[Block] = [heat_chart(plan, store, words)]
    if facts.scenarios.height > 1:
        blocks.append(budget_chart(facts.scenarios, store, words))
    binding = binding_limits(facts.limits)
    if binding:
        blocks.append(
            Notes(
                words("What holds the plan back", "限制计划的因素"),
                binding_sentences(binding, store, words),
            )
        )
    blocks.append(totals_table(plan, "audience_id", words("By audience", "按受众"), words("Audience", "受众"), store, words))
    blocks.append(totals_table(plan, "creative_id", words("By creative", "按创意"), words("Creative", "创意"), store, words))
    if facts.limits.height:
        blocks.append(limits_table(facts.limits, words))
    if facts.changes.height:
        blocks.append(changes_table(facts.changes, words))
    if facts.proposals.height:
        blocks.append(proposals_table(facts.proposals, store, words))
    return Section("plan", title, lead, blocks)


def binding_sentences(binding: list[dict[str, Any]], store: Store, words: Words) -> list[str]:
    """The binding limits in words; of sold-out cells only the dearest, and how many more there are."""
    rules = [row for row in binding if not row["is_supply"]]
    cells = [row for row in binding if row["is_supply"]]
    sentences = [limit_sentence(row, store, words) for row in [*rules[:MOST_LIMITS], *cells[:MOST_CELLS]]]
    if left := len(rules) - MOST_LIMITS:
        sentences += (
            [words("{n} more limits bind; see “Every limit”.", "另有 {n} 个限制起作用，见“全部限制”。", n=left)]
            if left > 0
            else []
        )
    if len(cells) > MOST_CELLS:
        sentences.append(
            words(
                "Everything on offer is bought in {n} more cells.",
                "另有 {n} 个单元的可投放展示已全部买下。",
                n=words.number(len(cells) - MOST_CELLS),
            )
        )
    return sentences


def binding_limits(limits: pl.DataFrame) -> list[dict[str, Any]]:
    """Binding limits, the costliest first: what a tenth more of the limit would be worth decides. Supply of single cells last."""
    rows = limits.filter(pl.col("is_binding")).with_columns(
        is_supply=pl.col("constraint_name").str.starts_with("availability"),
        stake=pl.col("shadow_price").abs() * pl.col("limit_value").abs() * 0.1 + pl.col("relaxation_needed") * 1e9,
    )
    return rows.sort("is_supply", pl.col("stake"), "constraint_name", descending=[False, True, False]).to_dicts()
