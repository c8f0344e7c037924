"""Recommendations: a ranked list per user, what goes with each item, and lists for baskets.

What belongs here: from what people did to which items to show them, with the reason. What does not: who a user is (profiles),
or how lists did (evaluation).

history.py reads, catalogue.py knows the items day by day, links.py counts what goes with what, next_visits.py regresses the next
visit on what was had before, scores.py says what speaks to whom and leanings.py which categories do, states.py holds what a block
of lists needs of its days, looks.py and ranker.py learn the order, lists.py applies the shop's rules, reasons.py puts it in words,
window.py makes the lists of whole weeks; fits.py says when what is fitted, build.py puts the tables together, baskets.py answers
for a basket.
"""

from marketing_assets.recommendations.baskets import BasketError, for_basket, read_baskets
from marketing_assets.recommendations.build import build_recommendations

__all__ = ["BasketError", "build_recommendations", "for_basket", "read_baskets"]
