"""The daily report in a real browser: no console errors, every chart drawn, tooltips and menus, phone and desktop, print.

Skips where Chromium or its driver is missing. The browser is kept off the network, so whatever the page would fetch fails.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketing_assets.report import write_report
from marketing_assets.warehouse import reader_over
from marketing_assets_tests.test_report import LAST, published, shop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytest.importorskip("selenium")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--proxy-server=127.0.0.1:9",
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for language in ("en", "zh"):
        folder = tmp_path_factory.mktemp(language)
        store = shop(folder, language=language)
        made[language] = write_report(reader_over(published(120), store, LAST), LAST, store)
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def view(browser: Any, width: int, height: int = 900, scheme: str = "light", media: str = "") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def opened(browser: Any, path: Path) -> float:
    """Open the page, wait until every chart is drawn; seconds."""
    started = time.perf_counter()
    browser.get(path.as_uri())
    while not browser.execute_script("return document.documentElement.dataset.ready"):
        assert time.perf_counter() - started < 30, browser.get_log("browser")
        time.sleep(0.05)
    return time.perf_counter() - started


def shot(browser: Any, name: str) -> None:
    """Keep a picture where REPORT_SCREENSHOTS names a folder, for people to look at."""
    folder = os.environ.get("REPORT_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


_DRAWN = """
const marks = p => [...p.querySelectorAll(['rect', 'line', 'symbol', 'area'].map(kind => `svg .mark-${kind} path`).join(', '))];
const plots = [...document.querySelectorAll('.plot')];
const drawn = plots.filter(p => p.dataset.drawn === 'yes');
return [plots.length, drawn.length, plots.filter(p => !marks(p).some(m => m.getBBox().height > 0)).map(p => p.id)];
"""
_OVERFLOWING = """
const right = e => e.getBoundingClientRect().right;
return [...document.querySelectorAll('.plot svg')].filter(s => right(s) > right(s.parentElement) + 1).length;
"""


@pytest.mark.parametrize(
    ("language", "width", "scheme"), [("en", 1280, "light"), ("en", 390, "dark"), ("zh", 1280, "dark"), ("zh", 390, "light")]
)
def test_the_page_draws_without_a_complaint(browser: Any, pages: dict[str, Path], language: str, width: int, scheme: str) -> None:
    view(browser, width, scheme=scheme)
    opened(browser, pages[language])
    shot(browser, f"{language}-{width}-{scheme}")
    assert browser.get_log("browser") == []
    charts, drawn, empty = browser.execute_script(_DRAWN)
    assert charts >= 10 and drawn == charts and empty == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width, "nothing may stick out of a phone"
    overflowing = browser.execute_script(_OVERFLOWING)
    assert overflowing == 0


def test_tooltips_menus_tables_and_the_theme_switch(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    view(browser, 1280)
    opened(browser, pages["en"])
    cells = browser.find_elements(By.CSS_SELECTOR, "#plan-heat .mark-rect.role-mark path")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cells[0])
    ActionChains(browser).move_to_element(cells[0]).perform()
    time.sleep(0.3)
    tooltip = browser.find_element(By.ID, "vg-tooltip-element")
    assert tooltip.is_displayed() and "Placement" in tooltip.text
    before = len(cells), [cell.get_attribute("fill") for cell in cells]
    menus = browser.find_elements(By.CSS_SELECTOR, "#plan-heat-menus select")
    assert len(menus) == 2
    Select(menus[1]).select_by_visible_text("champions")
    time.sleep(0.5)
    filtered = browser.find_elements(By.CSS_SELECTOR, "#plan-heat .mark-rect.role-mark path")
    assert 0 < len(filtered) < before[0], "the audience menu filters the heat map"
    Select(menus[0]).select_by_visible_text("spend")
    button = browser.find_element(By.CSS_SELECTOR, "button.all")
    hidden = browser.execute_script("return document.querySelectorAll('tr.rest').length")
    browser.execute_script("arguments[0].click()", button)
    assert (
        browser.execute_script(
            "return [...document.querySelectorAll('tr.rest')].filter(r => getComputedStyle(r).display !== 'none').length"
        )
        <= hidden
    )
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(ground)
    browser.find_element(By.ID, "theme").click()
    assert browser.execute_script(ground) != light
    browser.find_element(By.ID, "theme").click()
    assert browser.get_log("browser") == []


_CONTRAST = """
const channel = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
const parse = c => c.match(/[\\d.]+/g).map(Number);
const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
const ground = e => {
  for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
  return [255, 255, 255];
};
const poor = [];
for (const e of document.querySelectorAll('body *')) {
  if (!e.offsetParent || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) poor.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio]);
}
return poor;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, pages: dict[str, Path], scheme: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1, everywhere, in both themes."""
    view(browser, 1280, scheme=scheme)
    opened(browser, pages["en"])
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.execute_script(_CONTRAST) == []


_OBJECTIONS = """
const found = [];
const named = e => e.getAttribute('aria-label') || e.closest('label')?.textContent || e.textContent.trim() || e.title;
let level = 0;
for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
  const n = Number(h.tagName[1]);
  if (n > level + 1) found.push('heading skips a level: ' + h.textContent);
  level = n;
}
if (document.querySelectorAll('h1').length !== 1 || document.querySelectorAll('main').length !== 1) found.push('one h1, one main');
for (const e of document.querySelectorAll('[role=img]')) {
  if ((e.getAttribute('aria-label') || '').length < 20) found.push('picture without words: ' + e.id);
  if (!e.closest('figure').querySelector('details.data table')) found.push('picture without its table: ' + e.id);
}
for (const t of document.querySelectorAll('table')) {
  if (!t.closest('#vg-tooltip-element') && !(t.caption && t.querySelector('thead th[scope=col]'))) found.push('table without caption or heads');
}
const controls = [...document.querySelectorAll('a, button, select, summary, [tabindex="0"]')].filter(e => e.offsetParent);
for (const e of controls) {
  if (!named(e)) found.push('control without a name: ' + e.outerHTML.slice(0, 80));
  if (e.matches('button, select') && e.getBoundingClientRect().height < 24) found.push('small target: ' + e.outerHTML.slice(0, 80));
}
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push('id twice: ' + id);
for (const e of document.querySelectorAll('[aria-labelledby]')) {
  if (!document.getElementById(e.getAttribute('aria-labelledby'))) found.push('label that is not there');
}
for (const a of document.querySelectorAll('a[href^="#"]')) {
  if (!document.getElementById(a.getAttribute('href').slice(1))) found.push('link to nowhere: ' + a.textContent);
}
for (const li of document.querySelectorAll('.actions li.bad, .actions li.warn')) {
  if (!li.querySelector('.unseen')) found.push('urgency told by colour alone');
}
return found;
"""


@pytest.mark.parametrize(("language", "said"), [("en", "en"), ("zh", "zh-Hans")])
def test_nothing_to_object_to_for_those_who_do_not_see_or_point(browser: Any, pages: dict[str, Path], language: str, said: str) -> None:
    """Order of headings, words and a table for every picture, names of controls, nothing told by colour alone."""
    view(browser, 1280)
    opened(browser, pages[language])
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.execute_script("return document.documentElement.lang") == said
    assert browser.execute_script(_OBJECTIONS) == []


def test_the_page_can_be_used_by_keys_alone(browser: Any, pages: dict[str, Path]) -> None:
    """Tab reaches everything with a visible ring, first a link past the contents; a button that goes hands its focus on."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    view(browser, 1280)
    opened(browser, pages["en"])
    active = "const e = document.activeElement; return [e.className, e.tagName, getComputedStyle(e).outlineStyle]"
    seen: list[list[str]] = []
    while not seen or seen[-1][1] != "BODY":  # once around
        ActionChains(browser).send_keys(Keys.TAB).perform()
        seen.append(browser.execute_script(active))
    assert seen[0][0] == "skip" and {"A", "BUTTON", "SELECT", "SUMMARY"} <= {tag for _, tag, _ in seen}
    assert not [one for one in seen[:-1] if one[2] == "none"], "where the focus is can be seen"
    button = browser.find_element("css selector", "button.all")
    browser.execute_script("arguments[0].focus()", button)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert browser.execute_script("return document.activeElement.className").startswith("scroll")
    theme = browser.find_element("id", "theme")
    before = theme.get_attribute("aria-pressed")
    theme.click()
    assert {before, theme.get_attribute("aria-pressed")} == {"true", "false"}
    theme.click()


def test_it_reflows_at_four_times_the_size(browser: Any, pages: dict[str, Path]) -> None:
    """WCAG 2.2, 1.4.10: 320 pixels wide without scrolling sideways; tables scroll within themselves."""
    view(browser, 320)
    opened(browser, pages["en"])
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 320


def test_colours_of_charts_have_contrast() -> None:
    """WCAG 2.2, 1.4.11: 3 to 1 against the card for lines, bars and controls, 4.5 for text, in both themes and in print."""
    import re

    from marketing_assets.report.page import _FOLDER

    style = (_FOLDER / "report.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]+), (#[0-9a-f]+)\)", style)
    themes = [{name: colours[number] for name, *colours in pairs} for number in (0, 1)]
    printed = re.findall(r"--([\w-]+): (#[0-9a-f]+);", style[style.index("@media print") :])
    themes.append(themes[0] | dict(printed))
    assert len(pairs) > 20 and printed

    def light(code: str) -> float:
        code = code[1:] if len(code) == 7 else "".join(2 * one for one in code[1:])
        parts = [int(code[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        return sum(w * (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4) for w, v in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    wanted = dict.fromkeys(["ink", "ink-2", "muted", "accent", "good", "bad", "warn"], 4.5)
    wanted |= {f"series-{number}": 3.0 for number in range(1, 7)}
    for theme in themes:
        for name, least in wanted.items():
            for ground in ("card", "page"):
                one, other = sorted((light(theme[name]), light(theme[ground])))
                assert (other + 0.05) / (one + 0.05) >= least, (name, ground, theme["page"])


def test_print_is_light_and_without_controls(browser: Any, pages: dict[str, Path]) -> None:
    view(browser, 1000, scheme="dark", media="print")
    opened(browser, pages["en"])
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"
    shot(browser, "print")
    view(browser, 1000)


def test_a_page_opens_within_two_seconds(browser: Any, tmp_path: Path) -> None:
    """20,000 items. Counted on the clock of the page's own thread, so that a busy machine does not matter; all charts drawn."""
    store = shop(tmp_path)
    path = write_report(reader_over(published(20_000), store, LAST), LAST, store)
    view(browser, 1280)
    browser.get("about:blank")
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    opened(browser, path)
    assert 0 < busy() < 2
