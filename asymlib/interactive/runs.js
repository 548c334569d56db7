// Means and 95% Student-t intervals over the chosen seeds; the curves come smoothed and thinned from asymlib.

// Mean, interval and number of seeds at every step; seeds without a value there are left out.
function overSeeds(curves, quantiles) {
  return curves[0].map((_, i) => {
    const values = curves.map((curve) => curve[i]).filter((value) => value !== null), n = values.length;
    if (!n) return { mean: NaN, half: NaN, seeds: 0 };
    const mean = values.reduce((sum, v) => sum + v, 0) / n;
    const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1);
    return { mean, half: n > 1 ? quantiles[n] * Math.sqrt(variance / n) : NaN, seeds: n };
  });
}

function build(root) {
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const familiar = ["reinforce", "grpo", "pos_only", "neg_only", "asymgrpo"], seedsOfAll = [...new Set(data.runs.map((r) => r.seed))].sort((a, b) => a - b);
  const has = {}; // what each group of runs has
  for (const { name } of data.groups) {
    const runs = data.runs.filter((r) => r.group === name);
    has[name] = { variants: new Set(runs.map((r) => r.variant)), seeds: new Set(runs.map((r) => r.seed)) };
  }
  const address = addressOf(root), asked = Object.fromEntries(["group", "metric", "step"].map((name) => [name, address.read.get(name)]));
  const first = { group: data.groups[0].name, metric: data.metrics[0].name, step: Infinity, seeds: new Set(seedsOfAll), variants: null };
  const state = { ...first };
  for (const [name, list] of [["group", data.groups], ["metric", data.metrics]]) if (list.some((o) => o.name === asked[name])) state[name] = asked[name];
  if (asked.step > 0) state.step = Number(asked.step);
  if (address.read.has("seeds")) state.seeds = new Set(address.read.getAll("seeds").map(Number).filter((seed) => seedsOfAll.includes(seed)));
  if (address.read.has("variants")) state.variants = new Set(address.read.getAll("variants").filter((name) => data.variants.some((v) => v.name === name)));
  let values;

  // The familiar methods of a group of runs, or all of a group that has none of them.
  function usual(group) {
    const known = familiar.filter((name) => has[group].variants.has(name));
    return new Set(known.length > 1 ? known : has[group].variants);
  }
  const chosen = () => state.variants ?? usual(state.group); // none was chosen by hand: the usual ones
  function writeAddress() {
    const { group, seeds } = state, own = [...has[group].seeds].sort((a, b) => a - b), on = own.filter((seed) => seeds.has(seed));
    const pairs = ["group", "metric", "step"].filter((name) => state[name] !== first[name]).map((name) => [name, state[name]]);
    const several = (name, list) => (list.length ? list : [""]).map((value) => [name, value]);
    address.write([...pairs, ...(on.length < own.length ? several("seeds", on) : []), ...(state.variants ? several("variants", [...state.variants]) : [])]);
  }

  function evaluate() {
    const steps = data.steps[state.group][state.metric] || [0, 1], curves = {};
    for (const { name } of data.variants.filter((v) => chosen().has(v.name))) {
      const runs = data.runs.filter((r) => r.group === state.group && r.variant === name && state.seeds.has(r.seed) && r.curves[state.metric]);
      if (!runs.length) continue;
      const every = runs.map((r) => r.curves[state.metric]), over = overSeeds(every, data.quantiles);
      curves[name] = { seeds: runs.map((r) => r.seed), every, over };
    }
    const at = steps.reduce((best, step, i) => (Math.abs(step - state.step) < Math.abs(steps[best] - state.step) ? i : best), steps.length - 1);
    return { group: state.group, metric: state.metric, steps, at, step: steps[at], curves };
  }

  // Black is the ink: on a dark ground it is the text's light one.
  const ink = (color) => (color === "#000000" ? "currentColor" : color);
  const colored = (tag, variant, attributes) => element(tag, { style: `--c: ${ink(variant.color)}`, ...attributes });
  const swatch = (v) => element("svg", { class: "key", viewBox: "-16 -7 32 14", "aria-hidden": "true" },
    colored("path", v, { class: "tint", d: "M-16 0H16", "stroke-dasharray": v.dash }), colored("path", v, { class: "tint mark", d: v.marker, transform: "scale(0.75)" }));

  function drawChart(width) {
    const { steps, at, curves } = values, metric = data.metrics.find((m) => m.name === state.metric);
    const shown = Object.values(curves).flatMap(({ every, over }) => [...every.flat(), ...over.flatMap((o) => (o.seeds > 2 ? [o.mean - o.half, o.mean + o.half] : []))]);
    const finite = shown.filter((v) => v !== null && Number.isFinite(v)).sort((a, b) => a - b), empty = !finite.length;
    const [low, high] = empty ? [0, 1] : [finite[0], finite[finite.length - 1]], room = 0.04 * (high - low || 1);
    const chart = axes({ title: metric.label, xlabel: "step", ylabel: metric.unit, xlim: [0, steps[steps.length - 1]], ylim: [low - room, high + room], width, height: Math.min(420, Math.max(280, width * 0.55)) });
    const line = (numbers) => path(numbers.map((v, i) => [chart.x(steps[i]), v === null ? NaN : chart.y(v)]));
    const drawn = data.variants.filter((v) => curves[v.name]), back = element("g"), front = element("g");
    drawn.forEach((variant, order) => {
      const { every, over } = curves[variant.name], mean = over.map((o) => o.mean);
      if (every.length > 1) back.append(...every.map((curve) => colored("path", variant, { class: "tint seed", d: line(curve) })));
      const banded = over.map((o, i) => ({ ...o, step: steps[i] })).filter((o) => o.seeds > 2), edges = [...banded.map((o) => [o.step, o.mean + o.half]), ...banded.reverse().map((o) => [o.step, o.mean - o.half])];
      if (edges.length) back.append(colored("path", variant, { class: "tint band", d: `${path(edges.map(([s, v]) => [chart.x(s), chart.y(v)]))}Z` }));
      front.append(colored("path", variant, { class: "tint", d: line(mean), "stroke-dasharray": variant.dash, "data-variant": variant.name }));
      const gap = Math.max(1, Math.floor(steps.length / 6)), offset = Math.floor((gap * order) / drawn.length);
      mean.forEach((v, i) => {
        if (i % gap === offset && Number.isFinite(v)) front.append(colored("path", variant, { class: "tint mark", d: variant.marker, transform: `translate(${chart.x(steps[i])} ${chart.y(v)})` }));
      });
    });
    const cross = chart.x(steps[at]);
    chart.front.append(back, front, element("line", { class: "cross", x1: cross, x2: cross, y1: chart.edge.top, y2: chart.height - chart.edge.bottom }));
    chart.root.setAttribute("aria-label", `${metric.label} over steps, ${drawn.length} methods: mean over seeds, 95% band, every seed faint behind.`);
    chart.root.addEventListener("pointermove", (event) => {
      const box = chart.root.getBoundingClientRect(), inside = ((event.clientX - box.left) / box.width) * width;
      const fraction = (inside - chart.edge.left) / (width - chart.edge.left - chart.edge.right);
      const step = Math.min(1, Math.max(0, fraction)) * steps[steps.length - 1];
      if (steps[values.at] !== steps.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a))) set({ step });
    });
    return chart.root;
  }

  function set(changes) {
    Object.assign(state, changes);
    values = evaluate();
    draw();
    writeAddress();
  }
  function pick(label, name, options) {
    const id = uniqueId(), made = options.map((o) => element("option", { value: o.name, selected: o.name === state[name] }, o.label));
    const select = element("select", { id, name, onchange: () => set({ [name]: select.value }) }, made);
    return element("div", { class: "pick" }, element("label", { for: id }, label), select);
  }
  const boxes = { variants: [], seeds: [] }; // [value, its label, its input]
  function check(store, value, ...content) {
    const input = element("input", { type: "checkbox", value, name: store, onchange: () => {
      const on = new Set(store === "variants" ? chosen() : state.seeds);
      if (input.checked) on.add(value); else on.delete(value);
      set({ [store]: on });
    } });
    const label = element("label", {}, input, ...content);
    boxes[store].push([value, label, input]);
    return label;
  }
  function checks(legend, store, ...content) {
    const all = (on) => element("button", { type: "button", onclick: () => set({ [store]: new Set(on ? has[state.group][store] : []) }) }, on ? "all" : "none");
    return element("fieldset", { class: store }, element("legend", {}, legend), ...content, element("div", { class: "choices" }, all(true), all(false)));
  }
  const choices = (labels) => element("div", { class: "choices" }, labels);
  const ofVariants = (some) => choices(some.map((v) => check("variants", v.name, swatch(v), symbols(v.label))));

  const figure = element("div", { class: "plot" }), readout = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Values at the step" });
  const stepId = uniqueId(), output = element("output", { for: stepId });
  const slider = element("input", { type: "range", id: stepId, name: "step", oninput: () => set({ step: values.steps[slider.value] }) });
  const changed = element("details", {}, element("summary", {}, "Methods with other settings"), ofVariants(data.variants.filter((v) => v.changed)));
  root.append(
    element("div", { class: "controls" }, pick("Metric", "metric", data.metrics), pick("Runs", "group", data.groups)),
    checks("Methods", "variants", ofVariants(data.variants.filter((v) => !v.changed)), changed),
    checks("Seeds", "seeds", choices(seedsOfAll.map((seed) => check("seeds", seed, String(seed))))),
    figure, element("div", { class: "slider" }, element("label", { for: stepId }, "values at step"), slider, output), readout,
    ...data.left_out.map((line) => element("p", { class: "note" }, line)));

  let width = 0;
  function draw() {
    width = Math.max(320, Math.min(figure.clientWidth || 720, 1000));
    figure.replaceChildren(drawChart(width));
    const on = { variants: chosen(), seeds: state.seeds };
    for (const [store, list] of Object.entries(boxes)) for (const [value, label, input] of list) {
      input.checked = on[store].has(value);
      label.hidden = !has[state.group][store].has(value);
    }
    changed.hidden = data.variants.every((v) => !v.changed || !has[state.group].variants.has(v.name));
    slider.max = values.steps.length - 1;
    slider.value = values.at;
    slider.setAttribute("aria-valuetext", `step ${values.step}`);
    output.textContent = values.step;
    const rows = data.variants.filter((v) => values.curves[v.name]).map((variant) => {
      const { mean, half, seeds } = values.curves[variant.name].over[values.at];
      const cells = [Number.isFinite(mean) ? text(mean) : "", Number.isFinite(half) ? `\u00b1 ${text(half)}` : "", String(seeds)];
      return element("tr", {}, element("th", { scope: "row" }, swatch(variant), " ", symbols(variant.label)), cells.map((c) => element("td", {}, c)));
    });
    const heads = ["method", "mean over seeds", "95% interval", "seeds"].map((h) => element("th", { scope: "col" }, h));
    readout.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, heads)), element("tbody", {}, rows)));
  }

  set({});
  new ResizeObserver(() => { if (Math.abs(figure.clientWidth - width) > 8 && figure.clientWidth >= 320 && figure.clientWidth <= 1000) draw(); }).observe(figure);
  root.asymlibRuns = { values: () => values, set };
  window.asymlibRuns = window.asymlibRuns || root.asymlibRuns;
}

document.querySelectorAll(".asymlib-runs:not([data-ready])").forEach((root) => {
  root.dataset.ready = "true";
  build(root);
});
