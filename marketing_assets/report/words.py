"""Numbers, dates and terms in the page's language.

What belongs here: formats, and names of things that come as codes. What does not: sentences (they stand where they are said,
in both languages).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal

from marketing_assets.config import Store

Number = int | float | Decimal

_SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "CNY": "¥", "JPY": "¥", "INR": "₹", "KRW": "₩", "BRL": "R$"}
_WHOLE = ("JPY", "KRW")
_WEEKDAYS = ("一", "二", "三", "四", "五", "六", "日")

TERMS: Mapping[str, tuple[str, str]] = {
    # figures
    "revenue": ("Revenue", "销售额"),
    "orders": ("Orders", "订单"),
    "average_order_value": ("Order value", "客单价"),
    "sessions": ("Sessions", "访问"),
    "session_conversion_rate": ("Sessions that buy", "访问转化率"),
    "ad_spend": ("Ad spend", "广告花费"),
    "ctr": ("Click rate", "点击率"),
    "ad_revenue": ("Ad revenue", "广告收入"),
    "roas": ("Return on ad spend", "广告回报率"),
    "mean_rating": ("Rating, 28 days", "28 天评分"),
    "planned_spend": ("Planned spend", "计划花费"),
    "planned_impressions": ("Planned impressions", "计划展示"),
    "expected_conversions": ("Expected conversions", "预计转化"),
    "expected_revenue": ("Expected value", "预计价值"),
    "expected_units": ("Expected units", "预计销量"),
    "items_to_order": ("Items to order", "待补货商品"),
    "order_cost": ("Cost of orders", "补货成本"),
    "drift_verdicts": ("Drift verdicts", "漂移判定"),
    "complaints": ("Complaints", "投诉"),
    "urgent_complaints": ("Urgent complaints", "紧急投诉"),
    "rejected_share": ("Rows refused", "被拒行占比"),
    # kinds of constraints
    "budget": ("daily budget", "每日预算"),
    "monthly_budget": ("what is left of the month's budget", "本月剩余预算"),
    "campaign_budget": ("budget of campaign", "活动预算"),
    "target_conversions": ("target of conversions", "转化目标"),
    "availability": ("impressions on offer", "可投放展示"),
    "frequency_cap": ("frequency cap of audience", "受众频次上限"),
    "sellable_units": ("stock of", "库存"),
    "placement_share": ("largest share of placement", "广告位占比上限"),
    "campaign_share": ("largest share of campaign", "活动占比上限"),
    "change_up": ("largest rise of campaign", "活动增幅上限"),
    "change_down": ("largest fall of campaign", "活动降幅上限"),
    "override_minimum": ("minimum set by hand", "人工下限"),
    "override_maximum": ("maximum set by hand", "人工上限"),
    # drift
    "data_quality": ("broken data", "数据异常"),
    "calibration": ("rates out of calibration", "比率失准"),
    "taste": ("changed tastes", "偏好变化"),
    "price": ("price", "价格"),
    "stock": ("stock", "缺货"),
    "mix": ("changed mix", "构成变化"),
    "season": ("season", "季节"),
    "refit": ("refit", "重新训练"),
    "stop_learning": ("stop learning", "停止学习"),
    "alert": ("alert", "提醒"),
    # service
    "delivery": ("delivery", "物流"),
    "defect": ("defect", "质量"),
    "size": ("size", "尺码"),
    "description": ("description", "描述不符"),
    "other": ("other", "其他"),
    "urgent": ("urgent", "紧急"),
    "high": ("high", "高"),
    "normal": ("normal", "普通"),
    "low": ("low", "低"),
    # plans
    "reason_price": ("price of impressions", "展示价格"),
    "reason_new": ("new on offer", "新增"),
    "reason_gone": ("no longer on offer", "已下线"),
    "reason_value": ("worth per impression", "单次价值"),
    "reason_supply": ("impressions on offer", "可投放量"),
    "reason_competition": ("money moved to better cells", "资金转向更优单元"),
    "optimal": ("optimal", "最优"),
    "relaxed": ("limits relaxed", "放宽限制"),
    "refused": ("refused", "已拒绝"),
    "no_inputs": ("no inputs", "无输入"),
    "money": ("money", "金额"),
    "impressions": ("impressions", "展示"),
    "conversions": ("conversions", "转化"),
    # segments
    "champions": ("champions", "核心客户"),
    "loyal": ("loyal", "忠诚客户"),
    "potential_loyalist": ("potential loyalist", "潜在忠诚客户"),
    "new": ("new", "新客户"),
    "promising": ("promising", "有潜力"),
    "need_attention": ("need attention", "需关注"),
    "about_to_sleep": ("about to sleep", "即将沉睡"),
    "at_risk": ("at risk", "有流失风险"),
    "cannot_lose": ("cannot lose", "不可流失"),
    "hibernating": ("hibernating", "沉睡"),
    "lost": ("lost", "已流失"),
    "never_bought": ("never bought", "从未购买"),
    "visitor": ("visitor", "访客"),
    # what is scored
    "shop": ("shop", "全店"),
    "ads": ("ads", "广告"),
    "demand": ("demand", "需求"),
    "profiles": ("profiles", "用户画像"),
    "recommendations": ("recommendations", "推荐"),
    "wrmsse": ("WRMSSE", "WRMSSE"),
    "rmsse": ("RMSSE", "RMSSE"),
    "pinball_loss": ("pinball loss", "分位损失"),
    "scaled_pinball_loss": ("scaled pinball loss", "缩放分位损失"),
    "log_loss": ("log loss", "对数损失"),
    "click_log_loss": ("click log loss", "点击对数损失"),
    "auc": ("AUC", "AUC"),
    "churn_log_loss": ("log loss of churn", "流失对数损失"),
    "churn_auc": ("AUC of churn", "流失 AUC"),
    "clv_top_fifth_share": ("margin of the best fifth by value", "价值前五分之一用户的毛利占比"),
    "ads_holdout": ("ads", "广告"),
    "recommendations_holdout": ("recommendations", "推荐"),
    "conversion": ("conversion", "转化"),
    # tables whose models learn
    "response_rates": ("response rates", "响应率"),
    "user_profiles": ("user profiles", "用户画像"),
    "audiences": ("audiences", "受众"),
    "demand_forecasts": ("demand forecasts", "需求预测"),
    "service_tickets": ("service tickets", "客诉工单"),
    # models
    "first": ("first fit", "首次训练"),
    "cadence": ("on schedule", "按期"),
    "request": ("on request", "按请求"),
    "rollback": ("rolled back", "回滚"),
    # sources
    "events": ("events", "事件"),
    "category": ("category", "品类"),
    "item": ("item", "商品"),
    "all": ("all", "全部"),
    # baselines
    "same_weekday_4_weeks": ("same weekday, 4 weeks", "前四周同日"),
    "popularity": ("popularity list", "热门榜"),
    "constant_rate": ("constant rate", "固定比率"),
    "base_rate": ("base rate", "基准率"),
    "seasonal_naive": ("seasonal naive", "季节性朴素预测"),
    "calibrated": ("perfectly calibrated", "完全校准"),
    "recent_buyers": ("who ordered lately", "近期下单者"),
    "top_spenders": ("who spent most so far", "累计消费最高者"),
    "best_single_category": ("one category for everybody", "统一单一品类"),
    "promise_kept": ("promise kept", "兑现承诺"),
    "nominal": ("nominal", "名义水平"),
    # forecasters
    "level_calendar": ("level x calendar", "水平 × 日历"),
    "bottom_up": ("sum of the items", "单品预测汇总"),
    # lists, before "at k"
    "ndcg": ("nDCG", "nDCG"),
    "f1": ("F1", "F1"),
    "hit_rate": ("hit rate", "命中率"),
    "choice_rate": ("chosen when looked at", "浏览后选择率"),
    "recall": ("recall", "召回率"),
    "precision": ("precision", "精确率"),
    # what is watched
    "ctr_calibration_ratio": ("clicks predicted / observed", "预测/实际点击"),
    "cvr_calibration_ratio": ("conversions predicted / observed", "预测/实际转化"),
    "calibration_ratio": ("predicted / observed", "预测/实际"),
    "clicks_promise_ratio": ("clicks against the promise", "点击兑现率"),
    "conversions_promise_ratio": ("conversions against the promise", "转化兑现率"),
    "spend_delivery_ratio": ("spend against the plan", "花费执行率"),
    "impressions_delivery_ratio": ("impressions against the plan", "展示执行率"),
    "preferred_category_rate": ("looks in the preferred category", "偏好品类浏览占比"),
    "cvr": ("conversion rate", "转化率"),
    "reject_rate": ("rows refused", "被拒行占比"),
    "psi": ("mix", "构成"),
    "volume": ("rows", "行数"),
    "unseen_values": ("unseen values", "未见过的取值"),
    "missing_values": ("missing values", "缺失值"),
    "unavailable_share": ("share not for sale", "不可售占比"),
    "price_change": ("list prices in a week", "一周标价变动"),
    "share": ("share", "占比"),
    "learning": ("learning", "学习"),
    "plan": ("plan", "计划"),
    "items": ("items", "商品"),
    "satisfaction": ("satisfaction", "满意度"),
    "level": ("level", "层级"),
    "device": ("device", "设备"),
    "channel": ("channel", "渠道"),
    "placement": ("placement", "广告位"),
    "audience": ("audience", "受众"),
    "event_type": ("event type", "事件类型"),
    "price_band": ("price band", "价格带"),
    "buying_device": ("buying device", "下单设备"),
    "cart_device": ("cart device", "加购设备"),
    "view_device": ("viewing device", "浏览设备"),
    "clicking_device": ("clicking device", "点击设备"),
}

AUDIENCES: Mapping[str, str] = {
    "champions": "核心客户",
    "at_risk": "有流失风险",
    "likely_buyers": "可能购买者",
    "new_users": "新用户",
    "everyone": "所有人",
    "unknown": "未识别访客",
}
"""Chinese names of the audiences a shop has that names none itself. What a shop named, stays as it wrote it."""


NOTES: Sequence[tuple[str, str]] = (
    (r"no response rates: nothing is known of tomorrow's cells", "没有响应率：对明天的单元一无所知"),
    (r"response rates do not meet what happened, so no plan rests on them: ", "响应率与实际不符，不据此制定计划："),
    (r"no cell is on offer tomorrow, or all are excluded", "明天没有可投放单元，或全部被排除"),
    (r"cautious: planned on the lower ends of the rates' (\S+) intervals", r"谨慎：按比率 \1 区间的下限计划"),
    (
        r"(\S+) conversions of the target are not sought: one more would cost over (\S+) of value, or cannot be had",
        r"目标中有 \1 次转化未争取：再多一次的代价会超过 \2，或无法获得",
    ),
    (r"no plan meets every limit; relaxed: ", "没有计划能满足所有限制；已放宽："),
    (r"\. By itself would do: ", "。单独放宽其一即可："),
    (r", or ", "，或"),
    (r"no cell is worth anything", "没有任何单元有价值"),
    (
        r"nothing says what a conversion is worth, so each counts as 1; map conversion_value, or set ad_planning.value to conversions",
        "没有数据说明一次转化的价值，故每次按 1 计；请映射 conversion_value，或将 ad_planning.value 设为 conversions",
    ),
    (r"overrides cost (\S+) of value: ", r"人工设定的代价为 \1："),
)
"""What ad_plan_runs.note may say, as patterns, and the same in Chinese."""


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class Words:
    """Says things in the shop's language and currency."""

    def __init__(self, store: Store) -> None:
        self.is_chinese = store.language == "zh"
        self.currency = store.currency

    def __call__(self, english: str, chinese: str, **values: object) -> str:
        """One of two wordings, with {names} filled in."""
        return (chinese if self.is_chinese else english).format(**values)

    def term(self, code: str) -> str:
        """The name of a code; the code itself, without underscores, where it has no other name."""
        known = TERMS.get(code)
        if known:
            return known[self.is_chinese]
        name, at, k = code.rpartition("_at_")
        return f"{self.term(name)}@{k}" if at and k.isdigit() else code.replace("_", " ")

    def audience(self, audience_id: str) -> str:
        """An audience; those every shop has by default are named in the page's language."""
        return AUDIENCES.get(audience_id, audience_id) if self.is_chinese else audience_id

    def series(self, code: str) -> str:
        """A watched series: 'ads.ctr[device=phone]' -> 'ads: Click rate (device phone)'."""
        name, _, part = code.removesuffix("]").partition("[")
        kind, _, value = part.partition("=")
        said = self(": ", "：").join(self.term(one) for one in name.split("."))
        if not kind:
            return said
        what = f"{self.term(kind)} {self.audience(value) if kind == 'audience' else self.term(value)}".strip()
        return said + self(" ({what})", "（{what}）", what=what)

    def note(self, text: str) -> str:
        """A note of ad_plan_runs, which are written in English, as a sentence of the page; what rounding cost is left to the table."""
        text = "; ".join(part for part in text.split("; ") if not part.startswith("whole impressions"))
        if not text:
            return ""
        if not self.is_chinese:
            return f"{capital(text)}."
        for pattern, said in NOTES:
            text = re.sub(pattern, said, text)
        return text.replace("; ", "；") + "。"

    def number(self, value: Number | None, digits: int | None = None) -> str:
        """1,234.5 with as many digits as the size deserves; '–' for nothing."""
        if value is None:
            return "–"
        value = float(value)
        if digits is None:
            size = abs(value)
            digits = 0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 4
        return f"{value:,.{digits}f}".replace("-", "−")

    def money(self, value: Number | None) -> str:
        if value is None:
            return "–"
        value = float(value)
        digits = 0 if self.currency in _WHOLE or abs(value) >= 1000 else 2
        symbol = _SYMBOLS.get(self.currency, self.currency + "\u00a0")
        return ("−" if value < 0 else "") + symbol + f"{abs(value):,.{digits}f}"

    def rate(self, value: float | None, digits: int | None = None) -> str:
        if value is None:
            return "–"
        share = value * 100
        if digits is None:
            digits = 0 if abs(share) >= 99.5 or share == 0 else 1 if abs(share) >= 10 else 2
        return f"{share:.{digits}f}".replace("-", "−") + ("%" if self.is_chinese else "\u00a0%")

    def figure(self, value: float | None, unit: str) -> str:
        """A headline value by its unit."""
        if unit == "money":
            return self.money(value)
        if unit == "rate":
            return self.rate(value)
        if unit in ("ratio", "points"):
            return self.number(value, 2)
        return self.number(value, 0 if value is None or abs(value) >= 20 or value == int(value) else 1)

    def signed(self, share: float) -> str:
        """+12 % or −3 %."""
        return ("+" if share > 0 else "") + self.rate(share, 0 if abs(share) >= 0.1 else 1)

    def day(self, value: date) -> str:
        if self.is_chinese:
            return f"{value.year}年{value.month}月{value.day}日 周{_WEEKDAYS[value.weekday()]}"
        return f"{value:%a} {value.day} {value:%b %Y}"

    @property
    def day_of_axis(self) -> str:
        """A short day as a format of d3."""
        return "%-m月%-d日" if self.is_chinese else "%-d %b"

    def short_day(self, value: date) -> str:
        return f"{value.month}月{value.day}日" if self.is_chinese else f"{value.day} {value:%b}"

    def items(self, names: list[str], most: int = 3) -> str:
        """'a, b, c and 4 more'."""
        shown = ("、" if self.is_chinese else ", ").join(names[:most])
        left = len(names) - most
        return shown if left <= 0 else shown + self(" and {n} more", " 及另外 {n} 项", n=left)
