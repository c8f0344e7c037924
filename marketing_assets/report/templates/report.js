"use strict";
(() => {
  const root = document.documentElement;
  const kept = (() => { try { return localStorage.getItem("report-theme"); } catch { return null; } })();
  if (kept) root.dataset.theme = kept;
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = document.getElementById("theme");
  theme.setAttribute("aria-pressed", isDark());
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    theme.setAttribute("aria-pressed", isDark());
    try { localStorage.setItem("report-theme", root.dataset.theme); } catch { /* a page opened from disk may have no storage */ }
  });
  for (const button of document.querySelectorAll("button.all")) {
    button.addEventListener("click", () => {
      const table = button.previousElementSibling;
      table.classList.add("open");
      table.focus({ preventScroll: true }); // the button goes, and whoever pressed it by key goes on in the table
      button.remove();
    });
  }

  const config = {
    background: "transparent", font: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", view: { stroke: null }, autosize: { type: "fit-x", contains: "padding" },
    axis: { labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, titlePadding: 8, domainOpacity: 0.5, tickOpacity: 0.5, labelPadding: 4, labelSeparation: 6 },
    legend: { labelFontSize: 12, titleFontSize: 12, symbolSize: 90 }, text: { fontSize: 12 },
  };
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, config, tooltip: { theme: "custom" },
  };
  const widthOf = (place) => Math.max(220, Math.floor(place.getBoundingClientRect().width));
  const draw = async (script) => {
    const place = document.getElementById(script.dataset.chart);
    const spec = JSON.parse(script.textContent);
    spec.width = widthOf(place);
    const { view } = await vegaEmbed(place, spec, { ...options, bind: `#${place.id}-menus` });
    place.dataset.drawn = "yes";
    new ResizeObserver(() => {
      const width = widthOf(place);
      if (width !== view.width()) view.width(width).resize().runAsync();
    }).observe(place);
  };
  const drawAll = async () => {
    for (const script of document.querySelectorAll("script[data-chart]")) {
      await draw(script);
      await new Promise((next) => setTimeout(next));
    }
    root.dataset.ready = "yes";
  };
  drawAll();
})();
