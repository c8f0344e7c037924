"""Raw rows -> clean and rejected rows, sessions, bots, refunds, credited conversions.

What belongs here: what makes a row good, and what it means next to the rows before it. What does not: reading files
(sources) and counting (features). Written once as expressions over a window of landed days; day by day gives the same rows.
"""

from __future__ import annotations

from marketing_assets.cleaning.accepted import accepted_landed, accepted_rows, by_day, by_range, tells_ranges, with_ranges
from marketing_assets.cleaning.build import build_cleaning
from marketing_assets.cleaning.outcomes import of_told, tells_conversions, tells_values

__all__ = [
    "accepted_landed", "accepted_rows", "build_cleaning", "by_day", "by_range", "of_told", "tells_conversions", "tells_ranges", "tells_values",
    "with_ranges",
]
