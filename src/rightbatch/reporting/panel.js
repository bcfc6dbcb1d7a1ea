"use strict";
/* The what-if panel: inputs to state, state to address, answer and curves to the page. */
(() => {
  const panel = document.getElementById("what-if-panel");
  if (!panel) return;
  const model = JSON.parse(document.getElementById("what-if-data").textContent);
  const { knobs } = model, { number, count, seconds, times } = drawing;
  const place = (name) => document.getElementById(`what-if-${name}`);
  const box = (knob) => document.getElementById(`knob-${knob.name}`);
  const slider = (knob) => document.getElementById(`knob-${knob.name}-slider`);
  const WHY = {
    balance: "longer steps just offset fewer",
    saturation: "smaller shares take as long",
    memory: "one more example needs one more pass",
    dataset: "the largest batch allowed",
  };
  const TROUBLE = {
    served: "No batch that can be served gives each replica an example.",
    time: "No batch size reaches the target in finite time.",
    unbounded: "Time falls with ever larger batches: nothing limits the batch here.",
  };

  const start = laws.startOf(knobs);
  let { state, ignored } = laws.decodeState(knobs, location.hash);
  const say = (words) => { place("said").textContent = words; };

  const show = () => {
    const problem = laws.problemOf(model, state);
    const entry = laws.plan(problem, state.P, state.price);
    showAnswer(entry);
    showCurves(problem, entry);
  };

  const showAnswer = (entry) => {
    const on = `${count(state.P)} replica${state.P === 1 ? "" : "s"}`;
    const tiles = {};
    if (entry.batch_size === null) {
      place("answer").textContent = `On ${on}: ${TROUBLE[entry.trouble]}`;
    } else {
      const within = entry.within_5_percent.map(count).join("–");
      const [run, most] = model.fitted_range;
      const beyond = entry.batch_size < run || entry.batch_size > most;
      const bound = state.S_min <= 0 && entry.limited_by === "dataset" ? "≥ " : "";
      const size = bound + count(entry.batch_size);
      place("answer").textContent
        = `On ${on} train at batch ${size}${beyond ? " (beyond the runs)" : ""}: `
        + `${number(entry.steps)} steps, ${seconds(entry.seconds)}, cost `
        + `${number(entry.cost)}; ${within} are within 5\u00a0% of the best time.`;
      const examples = entry.steps * entry.batch_size;
      tiles.batch = [size + (beyond ? "*" : ""), `${within} within 5\u00a0%`];
      tiles.seconds = [seconds(entry.seconds), `${seconds(entry.seconds_per_step)} a step`];
      tiles.steps = [number(entry.steps), `${number(examples)} ${model.unit}`];
      tiles.cost = [number(entry.cost), `${number(entry.cost / state.price)} replica-hours`];
      tiles.speedup = entry.speedup === null ? ["–", ""]
        : [times(entry.speedup), `${number(100 * entry.speedup / state.P)}\u00a0% efficiency`];
      tiles.limit = [entry.limited_by, WHY[entry.limited_by]];
    }
    for (const name of ["batch", "seconds", "steps", "cost", "speedup", "limit"]) {
      const [big, small] = tiles[name] ?? ["–", ""];
      const strong = document.createElement("b");
      strong.textContent = big;
      place(name).replaceChildren(strong, ` ${small}`);
    }
  };

  const showCurves = (problem, entry) => {
    const most = 4 * Math.max(state.P, model.replicas);
    const plans = laws.plans(problem, state.P, most, state.price);
    showRows(plans);
    const drawn = (name, draw) => {
      const svg = place(name), width = svg.clientWidth, height = svg.clientHeight;
      if (!width) return;
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.innerHTML = entry.batch_size === null ? "" : draw(width, height);
    };
    place("time-title").textContent = entry.batch_size === null ? "No best batch"
      : `Batch ${count(entry.batch_size)} is best on ${count(state.P)}, in ${seconds(entry.seconds)}`;
    place("pareto-title").textContent = paretoTitle(problem, entry);
    const changed = laws.encodeState(knobs, { ...state, price: start.price }) !== "";
    drawn("time", (width, height) => drawing.timeCurve({
      now: { points: laws.curve(problem, entry), plan: entry },
      before: changed ? planned() : null,
      hourly: state.P * state.price,
      unit: model.unit,
      width,
      height,
    }));
    drawn("pareto", (width, height) =>
      drawing.paretoCurve({ plans, replicas: state.P, width, height }));
  };

  const planned = () => {
    const problem = laws.problemOf(model, start);
    const entry = laws.plan(problem, start.P);
    if (entry.batch_size === null) return null;
    return { points: laws.curve(problem, entry), plan: entry };
  };

  const paretoTitle = (problem, entry) => {
    const twice = laws.plan(problem, 2 * state.P, state.price);
    if (entry.batch_size === null || twice.batch_size === null) return "Time and cost";
    return `Twice the replicas: ${times(entry.seconds / twice.seconds)} as fast, `
      + `${times(twice.cost / entry.cost)} the cost`;
  };

  const showRows = (plans) => {
    if (!place("numbers").open) return;
    place("rows").replaceChildren(...plans.map((entry) => {
      const row = document.createElement("tr");
      const texts = [
        count(entry.num_replicas), count(entry.batch_size),
        entry.within_5_percent.map(count).join("–"), number(entry.steps),
        seconds(entry.seconds), entry.speedup === null ? "–" : times(entry.speedup),
        number(entry.cost),
      ];
      row.replaceChildren(...texts.map((words, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (!i) cell.scope = "row";
        cell.className = "right";
        cell.textContent = words;
        return cell;
      }));
      return row;
    }));
  };

  // The inputs show the state; the one being typed in is left alone.
  const fill = (except) => {
    for (const knob of knobs) {
      const value = state[knob.name];
      if (box(knob) !== except) {
        box(knob).value = Number((value / knob.size).toPrecision(knob.whole ? 9 : 4));
        box(knob).removeAttribute("aria-invalid");
      }
      slider(knob).value = laws.placeOf(knob, value);
      const words = `${box(knob).value} ${knob.unit}`.trim();
      slider(knob).setAttribute("aria-valuetext", words);
    }
  };

  // The address is written when things rest: browsers limit how often it may be.
  let resting = 0;
  const remember = () => {
    const others = location.hash.slice(1).split("&").filter((p) => p && !p.includes("="));
    const asked = laws.encodeState(knobs, state);
    const hash = [...others, ...(asked ? [asked] : [])].join("&");
    if (hash === location.hash.slice(1)) return;
    history.replaceState(null, "", hash ? `#${hash}` : location.href.split("#")[0]);
  };

  let frame = 0;
  const change = (next, except) => {
    state = next;
    fill(except);
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(show);
    clearTimeout(resting);
    resting = setTimeout(remember, 200);
    say("");
  };

  for (const knob of knobs) {
    slider(knob).addEventListener("input", () => {
      change({ ...state, [knob.name]: laws.valueAt(knob, Number(slider(knob).value)) });
    });
    box(knob).addEventListener("input", () => {
      const value = box(knob).value === "" ? NaN : Number(box(knob).value) * knob.size;
      const fine = laws.isAllowed(knob, value);
      if (fine) change({ ...state, [knob.name]: value }, box(knob));
      box(knob).setAttribute("aria-invalid", String(!fine));
    });
    box(knob).addEventListener("change", () => fill(null));
  }
  place("reset").addEventListener("click", () => change({ ...start }, null));
  place("copy").addEventListener("click", async () => {
    remember();
    try {
      await navigator.clipboard.writeText(location.href);
      say("Copied");
    } catch {
      say("The address of this page is the link");
    }
  });
  place("numbers").addEventListener("toggle", show);
  addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    change(laws.decodeState(knobs, location.hash).state, null);
  });

  panel.hidden = false;
  fill(null);
  new ResizeObserver(show).observe(place("time"));
  show();
  if (ignored.length) say(`Not understood in the address: ${ignored.join(", ")}`);
  if (location.hash.includes("=")) panel.parentElement.scrollIntoView();
})();
