"""Landing files -> raw tables, by the mapping in store.yaml.

What belongs here: which files feed a day, how they are read, mapped and named row by row, and their fingerprints. What
does not: whether a value is good (cleaning.py); raw tables hold what was mapped, as text.
"""

from __future__ import annotations

from marketing_assets.sources.engine import release
from marketing_assets.sources.errors import SourceError
from marketing_assets.sources.files import chunks, landing_days, source_blocks
from marketing_assets.sources.fingerprints import file_fingerprint
from marketing_assets.sources.landing import build_sources

__all__ = ["SourceError", "build_sources", "chunks", "file_fingerprint", "landing_days", "release", "source_blocks"]
