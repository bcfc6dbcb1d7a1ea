"use strict";
/* Words and curves of the report's panel, as text: nothing here knows of a page. Numbers
   read as everywhere in the report, three significant digits. */
const drawing = (() => {
  const grouped = (text) => {
    const [whole, rest] = text.split(".");
    const with_commas = whole.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
    return rest === undefined ? with_commas : `${with_commas}.${rest}`;
  };

  const number = (value) => {
    if (!Number.isFinite(value)) return "–";
    const rounded = Number(value.toPrecision(3));
    if (rounded === 0) return "0";
    const size = Math.abs(rounded);
    if (size < 1e-4 || size >= 1e10) {
      return rounded.toExponential().replace("e+", "e");
    }
    const text = rounded.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
    return grouped(text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  };

  const count = (value) =>
    Number.isInteger(value) ? grouped(String(value)) : number(value);

  const UNITS = [["h", 3600], ["min", 60], ["s", 1], ["ms", 1e-3], ["µs", 1e-6]];
  const seconds = (value) => {
    if (!Number.isFinite(value)) return "–";
    const rounded = Number(value.toPrecision(3));
    const [unit, size] = UNITS.find((each) => Math.abs(rounded) >= each[1]) ?? UNITS[4];
    return rounded === 0 ? "0 s" : `${number(rounded / size)} ${unit}`;
  };

  const times = (value) => `${number(value)}×`;
  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

  // Axes -----------------------------------------------------------------------------

  const decimalTicks = (low, high, most) => {
    for (const leads of [[1, 2, 3, 5], [1, 2, 5], [1, 3], [1]]) {
      const ticks = [];
      for (let d = Math.floor(Math.log10(low)); d <= Math.log10(high); d += 1) {
        for (const lead of leads) ticks.push(Number(`${lead}e${d}`));
      }
      const kept = ticks.filter((tick) => tick >= low && tick <= high);
      if (kept.length <= most) return kept;
      if (leads.length === 1) return thinned(kept, most);
    }
    return [];
  };

  const thinned = (ticks, most) =>
    ticks.filter((_, i) => i % Math.ceil(ticks.length / most) === 0);

  const CLOCK = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000];
  const timeTicks = (low, high, most) => {
    const clock = CLOCK.filter((tick) => tick >= low && tick <= high);
    const unit = low >= 3600 ? 3600 : low >= 60 && high <= 7200 ? 60 : high <= 90 ? 1 : 0;
    if (unit === 0 && clock.length >= 3 && high < 72000) return thinned(clock, most);
    const size = unit || 1;
    return decimalTicks(low / size, high / size, most).map((tick) => tick * size);
  };

  const twoTicks = (low, high, most) => {
    const ticks = [];
    for (let e = Math.ceil(Math.log2(low)); e <= Math.log2(high); e += 1) ticks.push(2 ** e);
    return thinned(ticks, most);
  };

  // A logarithmic axis: where a value lies between two ends, in pixels.
  const scale = (low, high, from, to) => (value) =>
    from + (to - from) * Math.log(value / low) / Math.log(high / low);

  const ends = (values, pad) => {
    const kept = values.filter((value) => Number.isFinite(value) && value > 0);
    const low = Math.min(...kept), high = Math.max(...kept);
    const room = Math.max((high / low) ** pad, 1.12);
    return [low / room, high * room];
  };

  // Marks ----------------------------------------------------------------------------

  const at = (value) => value.toFixed(1);
  const text = (x, y, words, anchor, kind = "") =>
    `<text x="${at(x)}" y="${at(y)}" text-anchor="${anchor}" class="${kind}">${escape(words)}</text>`;
  const path = (points, kind) => points.length < 2 ? ""
    : `<path class="${kind}" d="M${points.map(([x, y]) => `${at(x)} ${at(y)}`).join("L")}"/>`;
  const circle = ([x, y], radius, kind) =>
    `<circle class="${kind}" cx="${at(x)}" cy="${at(y)}" r="${radius}"/>`;

  const frame = (box, xs, ys, words) => {
    const { left, right, top, bottom } = box;
    const columns = xs.map(([x, label]) =>
      path([[x, top], [x, bottom]], "grid") + text(x, bottom + 19, label, "middle"));
    const rows = ys.map(([y, label, other]) =>
      path([[left, y], [right, y]], "grid") + text(left - 8, y + 4, label, "end")
      + (other ? text(right + 8, y + 4, other, "start") : ""));
    const axes = path([[left, top], [left, bottom], [right, bottom]], "axis");
    return columns.join("") + rows.join("") + axes
      + text(4, top - 14, words.y, "start") + text(right, bottom + 40, words.x, "end")
      + (words.right ? text(box.width - 4, top - 14, words.right, "end") : "");
  };

  /* Time to the target against the batch size on one number of replicas, the cost of it
     on the right. `now` and `before` are {points: [[batch, seconds]], plan}. */
  const timeCurve = ({ now, before, hourly, unit = "examples", width, height }) => {
    const box = { left: 66, right: width - 62, top: 38, bottom: height - 48, width };
    const curves = before ? [before, now] : [now];
    const all = curves.flatMap((curve) => curve.points);
    const [x0, x1] = ends(all.map(([x]) => x), 0.01);
    const least = Math.min(...curves.map((curve) => curve.plan.seconds));
    const top = ends(all.map(([, y]) => Math.min(y, 8 * least)), 0.06)[1];
    const [y0, y1] = [least / (top / least) ** 0.25, top];  // room for a name below
    const x = scale(x0, x1, box.left, box.right), y = scale(y0, y1, box.bottom, box.top);
    const place = ([batch, time]) => [x(batch), y(time)];
    const most = Math.max(3, Math.floor((box.right - box.left) / 52));
    const money = (time) => number(hourly * time / 3600);
    const marks = curves.map((curve) => {
      const kind = curve === now ? "now" : "before";
      const [low, high] = curve.plan.within_5_percent;
      const visible = curve.points.filter(([, time]) => time <= y1);
      const inside = visible.filter(([batch]) => batch >= low && batch <= high);
      const best = place([curve.plan.batch_size, curve.plan.seconds]);
      return path(visible.map(place), `${kind} line`)
        + (curve === now ? path(inside.map(place), "now thick") : "")
        + circle(best, curve === now ? 6 : 4, `${kind} ring`)
        + (curve === now
          ? text(best[0], best[1] + 24, `batch ${count(curve.plan.batch_size)}`, "middle", "now")
          : "");
    });
    const columns = twoTicks(x0, x1, most).map((tick) => [x(tick), count(tick)]);
    const rows = timeTicks(y0, y1, 6).map((tick) => [y(tick), seconds(tick), money(tick)]);
    const words = { x: `batch size, ${unit} per step`, y: "time to the target", right: "cost" };
    return frame(box, columns, rows, words) + marks.join("");
  };

  // The best plan on each number of replicas: how much sooner, for how much more.
  const paretoCurve = ({ plans, replicas, width, height }) => {
    const box = { left: 66, right: width - 16, top: 38, bottom: height - 48, width };
    const [x0, x1] = ends(plans.map((plan) => plan.cost), 0.1);
    const [y0, y1] = ends(plans.map((plan) => plan.seconds), 0.1);
    const x = scale(x0, x1, box.left, box.right), y = scale(y0, y1, box.bottom, box.top);
    const place = (plan) => [x(plan.cost), y(plan.seconds)];
    const most = Math.max(3, Math.floor((box.right - box.left) / 52));
    let last = [-Infinity, -Infinity];
    const marks = plans.map((plan) => {
      const here = plan.num_replicas === replicas, point = place(plan);
      const apart = Math.hypot(point[0] - last[0], point[1] - last[1]) > 22;
      if (here || apart) last = point;
      const word = here ? `P = ${count(replicas)}` : count(plan.num_replicas);
      return circle(point, here ? 6.5 : 4, here ? "now ring" : "now dot")
        + (here || apart ? text(point[0] + 9, point[1] - 7, word, "start", here ? "now" : "") : "");
    });
    const columns = decimalTicks(x0, x1, most).map((tick) => [x(tick), number(tick)]);
    const rows = timeTicks(y0, y1, 6).map((tick) => [y(tick), seconds(tick), ""]);
    return frame(box, columns, rows, { x: "cost", y: "time to the target" })
      + path(plans.map(place), "now line") + marks.join("");
  };

  return Object.freeze({
    number, count, seconds, times, escape, decimalTicks, timeTicks, twoTicks, timeCurve,
    paretoCurve,
  });
})();
