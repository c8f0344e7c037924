"""Which source a part of the page lacks, in words.

What belongs here: one question to the store's sources. What does not: anything read from tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from marketing_assets.config import Store
from marketing_assets.report.words import Words


def lacks(store: Store, words: Words, any_of: Sequence[str]) -> str | None:
    """None where the shop has one of these sources; else a sentence that names them."""
    if any(store.blocks(source) for source in any_of):
        return None
    names = words(" or ", "或").join(f"“{source}”" for source in any_of)
    return words(
        "This part needs the source {names}, which store.yaml does not map.",
        "此部分需要数据源{names}，store.yaml 尚未配置。",
        names=names,
    )
