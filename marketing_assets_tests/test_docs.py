"""The documentation is true: commands run, settings and tables are all there with their defaults, links and names exist."""

from __future__ import annotations

import configparser
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from marketing_assets import config
from marketing_assets.config import REPOSITORY_ROOT, SourceBlock, Store
from marketing_assets.schemas import INPUTS, TABLES

DOCS = REPOSITORY_ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMAND_PAGES = ["bring_your_own_shop.md", "read_the_report.md", "privacy.md", "run_every_night.md", "add_an_asset.md"]
"""Pages whose commands are run, in this order: the later ones look at the shop the first one built.

README's run in test_commands.py. What takes hours or changes the machine (systemctl, docker, trials) stands indented on a page,
not fenced, and is only held to options and files that exist.
"""


def fenced(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


# --- commands ---------------------------------------------------------------------------------------------------------


def a_small_rees46(folder: Path) -> None:
    """A file in the layout of the public set, where that is not at hand."""
    folder.mkdir(parents=True)
    lines = ["event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"]
    for place in range(3000):
        at = datetime(2019, 10, 1) + timedelta(seconds=3 * place)
        kind = ("view", "view", "view", "cart", "view", "purchase")[place % 6]
        item, user = place * 7 % 80, place // 6 % 300
        lines.append(
            f"{at} UTC,{kind},{1000 + item},{item % 9},{'toys.blocks' if item % 3 else ''},acme,{5 + item}.50,{user},s{user}"
        )
    (folder / "2019-10-01.csv.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working copy to run commands in: the repository's content by links, its own scratch folder."""
    folder = tmp_path_factory.mktemp("docs")
    for name in (
        "marketing_assets",
        "marketing_assets_tests",
        "docs",
        "data",
        "pyproject.toml",
        "workspace.yaml",
        "dagster.yaml",
    ):
        (folder / name).symlink_to(REPOSITORY_ROOT / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    yield folder


def run(copy: Path, script: str, store: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MARKETING_", "DAGSTER_"))}
    data = os.environ.get("MARKETING_DATA")
    if not data:
        data = str(copy / "public")
        if not Path(data).exists():
            a_small_rees46(Path(data) / "rees46")
    environment |= {"MARKETING_DATA": data, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    if store is not None:
        environment["MARKETING_STORE"] = str(store)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def shown(result: subprocess.CompletedProcess[str]) -> str:
    return f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"


def test_the_commands_of_every_page_run_one_after_the_other(copy: Path) -> None:
    """A newcomer who copies block by block gets through, and finds what the page promises."""
    store = copy / "scratch" / "my_shop" / "store.yaml"
    for name in COMMAND_PAGES:
        blocks = fenced(DOCS / name, "sh")
        assert blocks, f"{name} has no commands"
        result = run(copy, "\n".join(blocks), store if store.exists() else None)
        assert result.returncode == 0, f"{name}: {shown(result)}"
        if name == "bring_your_own_shop.md":
            assert "ok: everything read can be used" in result.stdout, shown(result)
            assert "closed through 2019-10-01" in result.stdout, shown(result)
    assert (store.parent / "reports" / "2019-10-01.html").stat().st_size > 10_000
    manifest = json.loads((store.parent / "exports" / "2019-10-01" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["as_of_date"] == "2019-10-01"
    assert {"lists", "plan"} <= set(manifest["exports"]), "the page ends with a plan"


def test_every_page_with_commands_is_run() -> None:
    with_commands = {page.name for page in PAGES if fenced(page, "sh")}
    assert with_commands == set(COMMAND_PAGES), "a page with commands belongs in COMMAND_PAGES"
    for page in PAGES:
        kinds = set(re.findall(r"^```(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert kinds <= {"sh", "yaml", "python", "sql", "text"}, f"{page.name}: commands that no test runs: {kinds}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_on_the_pages_is_what_store_yaml_takes(page: Path) -> None:
    """An example with a key nobody knows would be copied and fail."""
    for block in fenced(page, "yaml"):
        content = yaml.safe_load(block)
        for key, value in content.items():
            if key in Store.model_fields:
                inner = Store.model_fields[key].annotation
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    inner.model_validate(value)
            elif key in INPUTS:
                SourceBlock.model_validate(value)
            else:
                assert any(key in source.columns for source in INPUTS.values()), (
                    f"{page.name}: {key} is no setting, input or column"
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_the_pages_parses(page: Path) -> None:
    import ast

    for block in fenced(page, "python"):
        ast.parse(block)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_modules_named_on_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for module in re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", text):
        place = module.removeprefix("marketing_assets/")
        # a page on one concept names that concept's modules without their folder
        found = [REPOSITORY_ROOT / module, *(path for top in ("marketing_assets", "benchmarks") for path in (REPOSITORY_ROOT / top).rglob(place))]
        beside = module in ("reports/", "exports/", "control/", "dagster/")  # of a shop
        assert beside or any(path.exists() for path in found), f"{page.name} names {module}"


def test_the_order_of_tables_and_commands_on_the_pages_is_what_the_command_line_knows() -> None:
    from marketing_assets.cli import parser

    known = set(parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]
    for page in PAGES:
        for command in re.findall(
            r"marketing ([a-z][a-z-]+)",
            " ".join(re.findall(r"`[^`\n]+`|^.*\.venv/bin/marketing .*$", page.read_text(encoding="utf-8"), re.MULTILINE)),
        ):
            assert command in known, f"{page.name}: no command 'marketing {command}'"


def test_numbers_explains_every_table() -> None:
    named = re.findall(r"^\| ([a-z_<>]+) \|", (DOCS / "numbers.md").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {"raw_<input>" if name.startswith("raw_") else name for name in TABLES}
    assert wanted - set(named) == set(), "say in docs/numbers.md how these come about"
    assert set(named) - wanted - {"table"} == set(), "docs/numbers.md explains tables that are gone"


# --- settings ---------------------------------------------------------------------------------------------------------


def written(default: object) -> str:
    """A default as the page writes it."""
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "null"
    if isinstance(default, tuple) and default and isinstance(default[0], BaseModel):
        return f"{len(default)} entries"
    return json.dumps(default) if isinstance(default, bool | tuple | dict | list) else str(default)


def settings_of(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, str, str]]:
    """(section, key, default) of every setting."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from settings_of(inner, f"{above}.{name}".lstrip("."))
        elif not field.exclude:
            yield above, name, written(field.get_default(call_default_factory=True))


def test_tune_lists_every_setting_with_its_default() -> None:
    """A setting added without a line here fails with the line to add; so does a default that moved."""
    heads = {
        "The shop": "",
        "An audience (profiles.audiences)": "audience",
        "A source block (sources.<input>)": "block",
        "Joined files (sources.<input>.join.<name>)": "joined",
    }
    page: set[tuple[str, str, str]] = set()
    for part in (DOCS / "tune.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        title = part.split("\n", 1)[0]
        for key, default, meaning in re.findall(r"^\| ([a-z_0-9]+) \| (.*?) \| (.+) \|$", part, re.MULTILINE):
            if (key, default) != ("key", "default"):
                assert len(meaning) > 3, f"{title}.{key} has no meaning"
                page.add((heads.get(title, title), key, default))
    wanted = set(settings_of(Store))
    wanted |= {("audience", key, default) for _, key, default in settings_of(config.Audience)}
    wanted |= {("block", key, default) for _, key, default in settings_of(SourceBlock)}
    wanted |= {("joined", key, default) for _, key, default in settings_of(config.JoinedFiles)}
    lacking = [
        f"under '## {section or 'The shop'}': | {key} | {default} | ... |" for section, key, default in sorted(wanted - page)
    ]
    assert not lacking, "add to docs/tune.md:\n" + "\n".join(lacking)
    assert page == wanted, f"docs/tune.md lists settings that are gone: {sorted(page - wanted)}"


# --- files to deploy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["marketing-daemon.service", "marketing-webserver.service"])
def test_units_start_what_exists_and_listen_on_this_machine_only(name: str) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DOCS / "deploy" / name)
    assert {"Unit", "Service", "Install"} <= set(unit.sections())
    program = Path(unit["Service"]["ExecStart"].split()[0]).name
    assert (Path(sys.executable).parent / program).exists()
    assert "--workspace workspace.yaml" in unit["Service"]["ExecStart"]
    if "webserver" in name:
        assert "--host 127.0.0.1" in unit["Service"]["ExecStart"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """With the paths of this working copy in place of the installed one's; nothing is started."""
    units = sorted((DOCS / "deploy").glob("marketing-*.*"))
    assert len(units) == 4
    for unit in units:
        text = unit.read_text(encoding="utf-8").replace("/opt/marketing-assets/.venv/bin", str(Path(sys.executable).parent))
        text = text.replace("/opt/marketing-assets", str(REPOSITORY_ROOT)).replace("User=marketing", "User=root")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    checked = subprocess.run(["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and not checked.stderr.strip(), checked.stderr


def test_compose_opens_its_port_to_this_machine_only() -> None:
    compose = yaml.safe_load((DOCS / "deploy" / "docker-compose.yml").read_text(encoding="utf-8"))
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]
    assert {service["command"][0] for service in compose["services"].values()} == {"dagster-daemon", "dagster-webserver"}


def test_the_image_copies_only_what_is_there() -> None:
    text = (DOCS / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (REPOSITORY_ROOT / source).exists(), source
