"""Suggested answers, by theme and language.

What belongs here: the templates and filling them in. What does not: which theme a complaint has (themes.py).

An answer names no person and promises nothing a template cannot know; whoever sends it adds what was done.
"""

from __future__ import annotations

from marketing_assets.reviews.text import Language

_OPENING = {
    "en": "Hello, thank you for telling us about {item}. We are sorry that it let you down.",
    "zh": "您好，感谢您就{item}向我们反馈，很抱歉给您带来不好的体验。",
}
_SAFETY = {
    "en": "Your health comes first: please stop using it, and see a doctor if the symptoms do not pass. A colleague will contact you today.",
    "zh": "您的健康最重要：请立即停止使用，如不适持续请就医。我们的同事今天会与您联系。",
}
_BODY = {
    "en": {
        "delivery": "We are checking with the carrier where {order} went wrong. If it is lost or "
        "incomplete, we send what is missing again or refund it, as you prefer.",
        "defect": "An item that does not work or arrives damaged is ours to put right. Please send us "
        "a photo; we then exchange it or refund {order}, and the return costs you nothing.",
        "size": "If the size is not right, we gladly exchange it; the return costs you nothing. "
        "Tell us your usual size or measurements and we look for the one that fits.",
        "price": "We are looking into the price you paid and into every charge on {order}. If something was "
        "charged wrongly, we refund the difference; if you would rather return it, you can.",
        "description": "It should be what its page shows. We are comparing the page with the item and "
        "will correct it. You may return {order} for a full refund, or we exchange it.",
        "other": "We would like to put this right. Please tell us what went wrong and what "
        "you would prefer: an exchange, a return or a refund of {order}.",
    },
    "zh": {
        "delivery": "我们正在与物流核查{order}的问题。如有丢失或少发，可按您的意愿补发或退款。",
        "defect": "商品损坏或无法使用由我们负责。请发送一张照片，我们将为您换货或为{order}退款，退货运费由我们承担。",
        "size": "尺码不合适可以更换，退货运费由我们承担。请告诉我们您平时的尺码或尺寸，我们帮您挑选合适的。",
        "price": "我们正在核对您支付的价格和{order}的各项费用。如有多收，我们将退还差额；您也可以选择退货。",
        "description": "商品应与页面一致。我们正在核对并会更正页面。您可以为{order}申请全额退款，或由我们换货。",
        "other": "我们希望妥善解决。请告诉我们具体问题，以及您希望换货、退货还是为{order}退款。",
    },
}
_CLOSING = {"en": "Kind regards, the {shop} team", "zh": "{shop}客服团队 敬上"}
_UNKNOWN = {"en": {"item": "your purchase", "order": "your order"}, "zh": {"item": "您购买的商品", "order": "您的订单"}}


def suggested_answer(
    theme: str, language: Language, *, shop: str, title: str | None, order_id: str | None, is_safety: bool
) -> str:
    """The template's text for one ticket. title, order_id: as the shop names them, None where unknown."""
    unknown = _UNKNOWN[language]
    quoted = {"en": "“{}”", "zh": "「{}」"}[language]
    item = quoted.format(title) if title else unknown["item"]
    order = {"en": f"order {order_id}", "zh": f"订单 {order_id} "}[language] if order_id else unknown["order"]
    body = _BODY[language][theme]
    sentences = [
        _OPENING[language].format(item=item),
        *([_SAFETY[language]] if is_safety else []),
        body[0].upper() + body[1:].format(order=order),
        _CLOSING[language].format(shop=shop),
    ]
    return "\n".join(sentences)
