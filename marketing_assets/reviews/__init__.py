"""Reviews to service: complaints by theme, whom and what they concern, how soon to answer, and what could be said.

What belongs here: reading complaints out of ratings and review text, and wording answers. What does not: the figures of
satisfaction (evaluation) and what the page shows of all this (report).
"""

from marketing_assets.reviews.build import build_service_tickets

__all__ = ["build_service_tickets"]
