"""The daily report: headline figures as a table, and one self-contained page per day beside store.yaml.

What belongs here: choosing, wording and drawing what the published tables say. What does not: computing any of it (the
concept modules). The page needs no network and no other file.
"""

from marketing_assets.report.figures import build_daily_report
from marketing_assets.report.page import render_report, write_report

__all__ = ["build_daily_report", "render_report", "write_report"]
