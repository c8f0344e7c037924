"""What several test modules share: quiet libraries, and one tiny sample shop lived for nine days."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test processes share two cores
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")

from marketing_assets.config import REPOSITORY_ROOT, Store, load_store

FIRST, LAST = date(2026, 8, 3), date(2026, 8, 11)


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the landing files of a tiny shop; read only, copy it with `shop_at`."""
    from marketing_assets.sample_shop import generate

    folder = tmp_path_factory.mktemp("lived")
    generate(folder, FIRST, (LAST - FIRST).days + 1, seed=3, size="tiny")
    text = (REPOSITORY_ROOT / "data" / "sample_shop" / "store.yaml").read_text(encoding="utf-8")
    lines = [f"last_day: {LAST}" if line.startswith("last_day:") else line for line in text.splitlines()]
    (folder / "store.yaml").write_text("\n".join([*lines, "methods: plain", "threads: 1"]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def shop_at(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """shop_at(name='shop', until=None): a copy of the tiny shop, with files landed after `until` deleted."""
    monkeypatch.delenv("MARKETING_WAREHOUSE", raising=False)

    def make(name: str = "shop", until: date | None = None) -> Store:
        folder = tmp_path / name
        (folder / "landing").mkdir(parents=True, exist_ok=True)
        shutil.copy(lived / "store.yaml", folder / "store.yaml")
        for file in sorted((lived / "landing").rglob("*.gz")):
            if until is None or date.fromisoformat(file.name[:10]) <= until:
                target = folder / "landing" / file.parent.name / file.name
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    shutil.copy(file, target)
        return load_store(folder / "store.yaml")

    return make
