"use strict";
/* Steps, seconds and plans: the laws of the report's panel. Numbers in, numbers out;
   nothing here knows of a page. Fields carry the names of the JSON result. Equation
   numbers are those of Perrone et al. (2019). */
const laws = (() => {
  const FARTHEST = 2 ** 40;  // where nothing limits the batch size
  const DENSE = 2 ** 10;  // shares that are all looked at
  const CELL_RATIO = 1.01;
  const CELL_PARTS = 16;
  const MOST_CELLS = 2 ** 15;
  const SAME_TIME = 1e-9;
  const ROUNDING = 1e-12;

  // Curves ---------------------------------------------------------------------------

  /* Steps to the target: S^s = S_min^s + (E_min / (B - F))^s, s the exponent of the
     knee, F the floor up to which the target is out of reach. */
  const steps = (law, batch) => {
    const { min_steps: fewest, min_examples: examples, knee_exponent: knee = 1 } = law;
    const above = batch - (law.min_batch_size || 0);
    if (above <= 0) return Infinity;
    if (knee === 1) return Math.max(fewest + examples / above, 0);
    const large = Math.max(fewest, examples / above);
    const small = Math.min(fewest, examples / above);
    return large * (1 + (small / large) ** knee) ** (1 / knee);
  };

  // Seconds that replicas spend on each other in one step, by the kind of exchange.
  const exchange = {
    none: () => 0,
    constant: (c) => c.seconds,
    linear: (c, replicas) => c.seconds_per_replica * replicas,
    ring: (c, replicas) => rounds(c, 2 * (replicas - 1), replicas),
    halving_doubling: (c, replicas) =>
      // The margin keeps 2^29 from rounding up to 30 halvings.
      rounds(c, 2 * Math.ceil(Math.log2(replicas) - 1e-9), replicas),
    sharded: (c, replicas) => rounds(c, 3 * (replicas - 1), replicas, 1.5),
    two_level: (c, replicas) => {
      const inner = Math.min(c.replicas_per_node, replicas);
      const nodes = Math.ceil(replicas / c.replicas_per_node);
      const side = (latency, bandwidth, count, bytes) =>
        2 * (count - 1) * latency + (2 * (count - 1) / count) * (bytes / bandwidth);
      return side(c.inner_latency_seconds, c.inner_bytes_per_second, inner, c.num_bytes)
        + side(c.outer_latency_seconds, c.outer_bytes_per_second, nodes,
          c.num_bytes / c.replicas_per_node);
    },
  };

  const rounds = (c, count, replicas, volume = 1) =>
    count * c.latency_seconds
    + volume * 2 * ((replicas - 1) / replicas) * (c.num_bytes / c.bytes_per_second);

  // Delta(P); one replica has nobody to talk to.
  const commSeconds = (communication, replicas) =>
    replicas > 1 ? exchange[communication.kind](communication, replicas) : 0;

  // A check of the target every N steps, seconds per step (eq. 6 over N).
  const evaluationSeconds = (law, replicas) => {
    const check = law.evaluation;
    if (!check) return 0;
    const each = check.seconds_per_example ?? law.seconds_per_example;
    const local = check.num_examples / (check.shared ? replicas : 1);
    return each * Math.max(local, law.saturation_batch_size) / check.every;
  };

  // Computing and exchanging, hidden behind each other as far as the exponent says.
  const overlapped = (compute, comm, exponent) => {
    if (exponent === 1) return compute + comm;
    const large = Math.max(compute, comm);
    if (exponent === Infinity || large === 0) return large;
    return large * (1 + (Math.min(compute, comm) / large) ** exponent) ** (1 / exponent);
  };

  /* T(B, P) = o + evaluation + (comp^q + Delta^q)^(1/q), comp = gamma max(B/P, M_T),
     for one number of replicas: a function of the batch size. */
  const stepTimer = (law, replicas) => {
    const fixed = (law.overhead_seconds || 0) + evaluationSeconds(law, replicas);
    const comm = commSeconds(law.communication, replicas);
    const exponent = Number(law.overlap_exponent ?? 1);  // the word "Infinity" too
    const { seconds_per_example: gamma, saturation_batch_size: knee } = law;
    return (batch) =>
      fixed + overlapped(gamma * Math.max(batch / replicas, knee), comm, exponent);
  };

  // A pass whose gradients are kept, not yet summed; its fixed cost counts in full.
  const passSeconds = (law, micro) => (law.overhead_seconds || 0)
    + law.seconds_per_example * Math.max(micro, law.saturation_batch_size);

  const stepSeconds = (law, batch, replicas) => stepTimer(law, replicas)(batch);

  // T_C = S T with the batch shared evenly, fractions of examples allowed (eqs. 1, 5).
  const secondsToTarget = (problem, batch, replicas) =>
    steps(problem.convergence, batch) * stepSeconds(problem.step_time, batch, replicas);

  // Whole examples: the largest share sets the pace -----------------------------------

  // Examples per forward pass and passes per step of one replica.
  const split = (limits, batch, replicas) => {
    const share = Math.ceil(batch / replicas);
    const passes = limits.max_micro_batch_size
      ? Math.ceil(share / limits.max_micro_batch_size) : 1;
    return [Math.ceil(share / passes), passes];
  };

  const largestBatch = ({ convergence, limits }, replicas) => {
    const caps = [limits.max_batch_size || FARTHEST];
    // Where S_min is not above zero no run says that a larger batch would be faster.
    if (convergence.min_steps <= 0 && limits.largest_run) {
      caps.push(Math.max(limits.largest_run, replicas));
    }
    if (limits.max_micro_batch_size && limits.max_accumulation_steps) {
      caps.push(replicas * limits.max_micro_batch_size * limits.max_accumulation_steps);
    }
    return Math.min(...caps);
  };

  // The only batch sizes to choose from, where they are given.
  const candidates = (problem, replicas) => [...problem.limits.candidates]
    .filter((size) => size >= replicas && size <= largestBatch(problem, replicas))
    .sort((a, b) => a - b);

  const same = (time, least) => time <= least * (1 + ROUNDING);

  // Functions of the batch size for one number of replicas.
  const served = (problem, replicas) => {
    const law = problem.step_time, together = stepTimer(law, replicas);
    const seconds = (batch) => {
      const [micro, passes] = split(problem.limits, batch, replicas);
      const last = together(micro * replicas);
      return passes === 1 ? last : last + (passes - 1) * passSeconds(law, micro);
    };
    const time = (batch) => {
      const all = steps(problem.convergence, batch) * seconds(batch);
      return all > 0 ? all : Infinity;
    };
    return { seconds, time, together };
  };

  const secondsAsServed = (problem, batch, replicas) =>
    steps(problem.convergence, batch) * served(problem, replicas).seconds(batch);

  /* The batch size with the least time. Of all that give a replica the same share the
     largest takes the fewest steps, so shares alone are searched. `trouble` says why
     there is none: nothing "served", no finite "time", or "unbounded". */
  const bestBatchSize = (problem, replicas) => {
    const high = largestBatch(problem, replicas);
    if (high < replicas) return { batch_size: null, trouble: "served" };
    const on = served(problem, replicas);
    if (problem.limits.candidates) {
      const sizes = candidates(problem, replicas), times = sizes.map(on.time);
      if (!sizes.length) return { batch_size: null, trouble: "served" };
      const least = Math.min(...times), found = times.findIndex((t) => same(t, least));
      return Number.isFinite(least) ? { batch_size: sizes[found], trouble: "" }
        : { batch_size: null, trouble: "time" };
    }
    const timeAt = (place) => on.time(Math.min(place * replicas, high));
    const full = Math.floor(high / replicas), last = Math.ceil(high / replicas);
    const found = problem.limits.max_micro_batch_size
      ? leastOfCells(problem, on, replicas, full) : leastOfValley(timeAt, full);
    const place = timeAt(last) < timeAt(found) * (1 - ROUNDING) ? last : found;
    const least = timeAt(place);
    if (!Number.isFinite(least)) return { batch_size: null, trouble: "time" };
    if (high === FARTHEST && timeAt(last) <= least * (1 + 1e-6)) {
      return { batch_size: null, trouble: "unbounded" };
    }
    return { batch_size: Math.min(place * replicas, high), trouble: "" };
  };

  /* Without accumulation d ln S/d ln B and d ln T/d ln B rise with B, for each of these
     laws: the time falls, and then it rises. Where it is infinite, steps are too (small
     batches, at a floor) or there are none (large ones, with S_min below zero). */
  const leastOfValley = (timeAt, last) => {
    let low = 1, high = last;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const [here, next] = [timeAt(middle), timeAt(middle + 1)];
      const falls = next < here || (here === Infinity && next === Infinity
        && timeAt(1) === Infinity && timeAt(last) < Infinity);
      if (falls) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  /* With accumulation the time is a saw. Steps fall and step times rise all the same, so
     within a cell no time is less than its least steps times its least step time: cells
     that could hold a better share are cut up, to single shares. */
  const leastOfCells = (problem, on, replicas, last) => {
    let best = 1, least = Infinity;
    const look = (place) => {
      const batch = place * replicas;
      const count = steps(problem.convergence, batch), each = on.seconds(batch);
      const time = count * each > 0 ? count * each : Infinity;
      if (time < least) [best, least] = [place, time];
      return { place, count, each };
    };
    let rows = [knotsTo(last).map(look)];
    for (;;) {
      const cells = [];
      for (const row of rows) {
        for (let i = 1; i < row.length; i += 1) {
          const a = row[i - 1], b = row[i];
          if (b.place - a.place > 1 && b.count * a.each < least * (1 - ROUNDING)
            && (a.count > 0 || b.count > 0)) cells.push([a.place, b.place]);
        }
      }
      if (!cells.length || cells.length > MOST_CELLS) return best;
      rows = cells.map(([left, right]) => parts(left, right).map(look));
    }
  };

  // All small shares, then ever wider cells.
  const knotsTo = (last) => {
    const knots = [];
    for (let place = 1; place <= Math.min(DENSE, last); place += 1) knots.push(place);
    for (let place = DENSE; place < last;) {
      place = Math.min(Math.floor(place * CELL_RATIO), last);
      knots.push(place);
    }
    return knots;
  };

  const parts = (left, right) => {
    const places = [];
    for (let i = 0; i <= CELL_PARTS; i += 1) {
      const place = Math.round(left + (right - left) * i / CELL_PARTS);
      if (place !== places[places.length - 1]) places.push(place);
    }
    return places;
  };

  // Batch sizes around the best, shared evenly, that lose at most `tolerance` of time.
  const rangeAround = (problem, replicas, best, tolerance = 0.05) => {
    const on = served(problem, replicas), high = largestBatch(problem, replicas);
    const allowed = (1 + tolerance) * on.time(best);
    if (problem.limits.candidates) {
      const sizes = candidates(problem, replicas), place = sizes.indexOf(best);
      const fits = (at) => on.time(sizes[at]) <= allowed;
      return [edge(fits, place, 0), edge(fits, place, sizes.length - 1)].map((at) => sizes[at]);
    }
    const start = Math.ceil(best / replicas), last = Math.ceil(high / replicas);
    const batch = (place) =>
      place === start ? best : Math.min(Math.max(place * replicas, replicas), high);
    const inside = (place) => on.time(batch(place)) <= allowed;
    const most = problem.limits.max_micro_batch_size ? 2 ** 11 : 2 ** 6;
    return [
      Math.min(batch(edge(inside, start, 1, most)), best),
      Math.max(batch(edge(inside, start, last, most)), best),
    ];
  };

  // The last place from `start` towards `stop` before the first one not inside, `most`
  // places looked at in turn: of a saw as many as in Python, to stop at the same tooth.
  const edge = (inside, start, stop, most = 2 ** 6) => {
    let good = start, bad = stop;
    for (;;) {
      const span = Math.abs(bad - good), sign = Math.sign(bad - good);
      let before = good, out = null;
      for (const reach of outward(span, most)) {
        const place = good + sign * reach;
        if (!inside(place)) { out = place; break; }
        before = place;
      }
      if (out === null) return bad;
      if (Math.abs(out - before) === 1) return before;
      [good, bad] = [before, out];
    }
  };

  // 1 to span, all whole numbers where there are few, else ever wider steps.
  const outward = (span, most) => {
    const reaches = [];
    const count = Math.min(span, most);
    for (let i = 1; i <= count; i += 1) {
      const reach = span <= most ? i : Math.round(span ** ((i - 1) / (count - 1)));
      if (reach !== reaches[reaches.length - 1]) reaches.push(reach);
    }
    return reaches;
  };

  // What keeps the best batch size from being larger.
  const limitedBy = (problem, replicas, best) => {
    const on = served(problem, replicas), { limits } = problem;
    const few = limits.candidates && candidates(problem, replicas);
    const high = few ? few[few.length - 1] : largestBatch(problem, replicas);
    const beyond = replicas * (Math.floor(high / replicas) + 1);
    const atEnd = best === high || (!few && best > high - replicas);
    if (atEnd && on.time(beyond) < on.time(best)) {
      const byMemory = limits.max_accumulation_steps
        ? replicas * limits.max_micro_batch_size * limits.max_accumulation_steps : FARTHEST;
      const byExample = limits.max_batch_size || FARTHEST;
      const larger = few && limits.candidates.some((size) => size > high && size <= byExample);
      return (few ? larger : byMemory < byExample) ? "memory" : "dataset";
    }
    if (limits.max_micro_batch_size) {
      const [now, next] = [best, best + replicas].map((b) => split(limits, b, replicas)[1]);
      const free = { ...limits, max_micro_batch_size: null, max_accumulation_steps: null };
      const freed = () => bestBatchSize({ ...problem, limits: free }, replicas).batch_size;
      if (next > now && freed() > best) return "memory";
    }
    const [share] = split(limits, best, replicas);
    const flat = (from) =>
      on.together((share - 1) * from * replicas)
      >= on.together(share * from * replicas) * (1 - SAME_TIME);
    return share === 1 || flat(1) || flat(1 - 1e-3) ? "saturation" : "balance";
  };

  const cost = (pricePerReplicaHour, replicas, seconds) =>
    pricePerReplicaHour * replicas * seconds / 3600;

  // The plan on one number of replicas, as an entry of a result's `optimal`.
  const plan = (problem, replicas, pricePerReplicaHour = 1) => {
    const { batch_size: best, trouble } = bestBatchSize(problem, replicas);
    if (best === null) return { num_replicas: replicas, batch_size: null, trouble };
    const seconds = secondsAsServed(problem, best, replicas);
    const one = bestBatchSize(problem, 1).batch_size;
    const [micro, passes] = split(problem.limits, best, replicas);
    return {
      num_replicas: replicas,
      batch_size: best,
      trouble,
      micro_batch_size: micro,
      accumulation_steps: passes,
      steps: steps(problem.convergence, best),
      seconds,
      seconds_per_step: seconds / steps(problem.convergence, best),
      speedup: one === null ? null : secondsAsServed(problem, one, 1) / seconds,
      limited_by: limitedBy(problem, replicas, best),
      within_5_percent: rangeAround(problem, replicas, best),
      cost: cost(pricePerReplicaHour, replicas, seconds),
    };
  };

  // Batch sizes and times around a plan, for a curve; its range and its ends included.
  const curve = (problem, entry, reach = 10, points = 96) => {
    const { num_replicas: replicas, batch_size: best } = entry;
    const high = Math.min(largestBatch(problem, replicas), reach * best);
    const low = Math.min(Math.max(replicas, best / reach), high / 2);
    const sizes = [best, ...entry.within_5_percent];
    for (let i = 0; i < points; i += 1) sizes.push(low * (high / low) ** (i / (points - 1)));
    const time = problem.limits.max_micro_batch_size ? secondsAsServed : secondsToTarget;
    return sizes.sort((a, b) => a - b).map((batch) => [batch, time(problem, batch, replicas)])
      .filter((point) => point[1] > 0 && Number.isFinite(point[1]));
  };

  // The best plan on 1, 2, 4, ... replicas and on those asked for, where there is one.
  const plans = (problem, asked, most, pricePerReplicaHour) => {
    const counts = new Set([asked]);
    for (let count = 1; count <= most; count *= 2) counts.add(count);
    return [...counts].sort((a, b) => a - b)
      .map((count) => plan(problem, count, pricePerReplicaHour))
      .filter((entry) => entry.batch_size !== null);
  };

  // What if: the state of the knobs, and what becomes of the fitted laws ---------------

  /* The same exchange with its bandwidth multiplied; the latency stays. Of two levels
     the network between nodes is widened. */
  const withBandwidth = (communication, factor) => {
    const scaled = { ...communication };
    for (const key of ["bytes_per_second", "outer_bytes_per_second"]) {
      if (key in scaled) scaled[key] *= factor;
    }
    for (const key of ["seconds", "seconds_per_replica"]) {
      if (key in scaled) scaled[key] /= factor;
    }
    return scaled;
  };

  const problemOf = (model, state) => ({
    convergence: { ...model.convergence, min_steps: state.S_min, min_examples: state.E_min },
    step_time: {
      ...model.step_time,
      seconds_per_example: state.gamma,
      saturation_batch_size: state.M_T,
      overhead_seconds: state.o,
      communication: "delta" in state
        ? { kind: "constant", seconds: state.delta }
        : withBandwidth(model.step_time.communication, state.bandwidth),
    },
    limits: model.limits,
  });

  const startOf = (knobs) =>
    Object.fromEntries(knobs.map((knob) => [knob.name, knob.value]));

  const isAllowed = (knob, value) =>
    Number.isFinite(value) && value >= knob.min && value <= knob.max
    && (!knob.whole || Number.isInteger(value));

  // "P=8&gamma=0.001": what differs from the start, numbers exact.
  const encodeState = (knobs, state) =>
    knobs.filter(({ name, value }) => state[name] !== value)
      .map(({ name }) => `${name}=${state[name]}`).join("&");

  /* The state an address asks for; what it does not name is as at the start. Parts
     without "=" are not meant for the panel; `ignored` are those not understood. */
  const decodeState = (knobs, text) => {
    const state = startOf(knobs), ignored = [];
    for (const part of text.replace(/^#/, "").split("&")) {
      const at = part.indexOf("=");
      if (at < 0) continue;
      const knob = knobs.find(({ name }) => name === part.slice(0, at));
      const given = part.slice(at + 1).trim();
      const value = given === "" ? NaN : Number(given);
      if (knob && isAllowed(knob, value)) state[knob.name] = value;
      else ignored.push(part);
    }
    return { state, ignored };
  };

  // A slider's whole-numbered places on a logarithmic scale; place 0 may mean zero.
  const placeOf = (knob, value) => {
    if (knob.stops) {
      const off = (stop) => Math.abs(Math.log(stop / value));
      return knob.stops.reduce((b, stop, i) => (off(stop) < off(knob.stops[b]) ? i : b), 0);
    }
    const first = knob.zero ? 1 : 0;
    if (value < knob.low) return 0;
    const share = Math.log(value / knob.low) / Math.log(knob.high / knob.low);
    return first + Math.round(Math.min(share, 1) * (knob.places - first));
  };

  const valueAt = (knob, place) => {
    if (place === placeOf(knob, knob.value)) return knob.value;
    if (knob.stops) return knob.stops[place];
    if (knob.zero && place === 0) return 0;
    const first = knob.zero ? 1 : 0;
    const share = (place - first) / (knob.places - first);
    return Number((knob.low * (knob.high / knob.low) ** share).toPrecision(3));
  };

  return Object.freeze({
    steps, commSeconds, evaluationSeconds, stepSeconds, passSeconds, secondsToTarget,
    split, largestBatch, secondsAsServed, bestBatchSize, rangeAround, limitedBy,
    cost, plan, plans, curve, withBandwidth, problemOf, startOf, isAllowed, encodeState, decodeState,
    placeOf, valueAt,
  });
})();
