"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures-data"), darkOf = read("dark-of-data");
  const root = document.documentElement, button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displayModeBar: false, displaylogo: false, showLink: false };
  // Dragging zooms with a mouse; on a touch screen it must scroll the page.
  const dragmode = matchMedia("(pointer: fine)").matches ? "zoom" : false;

  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const recolor = (value, dark) => {
    if (typeof value === "string") return dark && Object.hasOwn(darkOf, value) ? darkOf[value] : value;
    if (Array.isArray(value)) return value.map((item) => recolor(item, dark));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recolor(item, dark)]));
  };
  // Names along the bottom that would run into the one before them are left out.
  const thinned = (axis, room) => {
    if (axis?.tickmode !== "array" || !axis.range) return axis;
    const [low, high] = axis.range, log = axis.type === "log" ? Math.log10 : Number;
    const at = axis.tickvals.map((value) => room * (log(value) - low) / (high - low));
    const kept = new Set();
    let end = -Infinity;
    // An axis may run from right to left.
    for (const i of [...at.keys()].sort((one, other) => at[one] - at[other])) {
      const half = 3.5 * String(axis.ticktext[i]).length + 4;
      if (at[i] - half < end) continue;
      end = at[i] + half;
      kept.add(i);
    }
    const those = (_, i) => kept.has(i);
    return { ...axis, tickvals: axis.tickvals.filter(those), ticktext: axis.ticktext.filter(those) };
  };
  const draw = (dark) => {
    for (const place of document.querySelectorAll("[data-figure]")) {
      const { data, layout } = recolor(figures[place.dataset.figure], dark);
      const room = place.clientWidth - layout.margin.l - layout.margin.r;
      for (const name of Object.keys(layout).filter((key) => key.startsWith("xaxis"))) {
        layout[name] = thinned(layout[name], room);
      }
      Plotly.react(place, data, { ...layout, dragmode, autosize: true }, config);
    }
    button.textContent = dark ? "Light" : "Dark";
  };

  const asked = location.hash.slice(1).split("&");
  const theme = ["dark", "light"].find((name) => asked.includes(name));
  if (theme) root.dataset.theme = theme;
  button.hidden = false;
  button.setAttribute("aria-label", "Switch between light and dark");
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    draw(isDark());
  });
  system.addEventListener("change", () => draw(isDark()));
  addEventListener("beforeprint", () => draw(false));
  addEventListener("afterprint", () => draw(isDark()));

  const save = document.getElementById("save");
  save.hidden = false;
  save.addEventListener("click", () => {
    const text = JSON.stringify(read("result-data"), null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "rightbatch-result.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  draw(isDark());
})();
