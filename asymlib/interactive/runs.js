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
  const first = ["reinforce", "grpo", "pos_only", "neg_only", "asymgrpo"], seedsOfAll = [...new Set(data.runs.map((r) => r.seed))].sort((a, b) => a - b);
  const state = {
    policy: data.policies[0].name, metric: data.metrics[0].name, step: Infinity, seeds: new Set(seedsOfAll),
    variants: new Set(data.variants.map((v) => v.name).filter((name, i, all) => first.includes(name) || !all.some((n) => first.includes(n)))),
  };
  let values;

  function evaluate() {
    const steps = data.steps[state.policy][state.metric] || [0, 1], curves = {};
    for (const { name } of data.variants.filter((v) => state.variants.has(v.name))) {
      const runs = data.runs.filter((r) => r.policy === state.policy && r.variant === name && state.seeds.has(r.seed) && r.curves[state.metric]);
      if (!runs.length) continue;
      const every = runs.map((r) => r.curves[state.metric]), over = overSeeds(every, data.quantiles);
      curves[name] = { seeds: runs.map((r) => r.seed), every, over };
    }
    const at = steps.reduce((best, step, i) => (Math.abs(step - state.step) < Math.abs(steps[best] - state.step) ? i : best), steps.length - 1);
    return { policy: state.policy, metric: state.metric, steps, at, step: steps[at], curves };
  }

  const colored = (tag, variant, attributes) => element(tag, { style: `--c: ${variant.color}`, ...attributes });
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
  }
  function pick(label, name, options) {
    const id = uniqueId(), select = element("select", { id, name, onchange: () => set({ [name]: select.value }) }, options.map((o) => element("option", { value: o.name }, o.label)));
    return element("div", { class: "pick" }, element("label", { for: id }, label), select);
  }
  function check(store, value, ...content) {
    const input = element("input", { type: "checkbox", checked: state[store].has(value), value, name: store, onchange: () => {
      if (input.checked) state[store].add(value); else state[store].delete(value);
      set({});
    } });
    return element("label", {}, input, ...content);
  }
  function checks(legend, store, options) {
    const labels = options.map(([value, ...content]) => check(store, value, ...content));
    const all = (on) => element("button", { type: "button", onclick: () => {
      labels.forEach((label) => { label.querySelector("input").checked = on; });
      set({ [store]: new Set(on ? options.map(([value]) => value) : []) });
    } }, on ? "all" : "none");
    return element("fieldset", { class: store }, element("legend", {}, legend), element("div", { class: "choices" }, labels, all(true), all(false)));
  }

  const figure = element("div", { class: "plot" }), readout = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Values at the step" });
  const stepId = uniqueId(), output = element("output", { for: stepId });
  const slider = element("input", { type: "range", id: stepId, name: "step", oninput: () => set({ step: values.steps[slider.value] }) });
  root.append(
    element("div", { class: "controls" }, pick("Metric", "metric", data.metrics), data.policies.length > 1 ? pick("Policy", "policy", data.policies) : element("div", {}, data.policies[0].label)),
    checks("Methods", "variants", data.variants.map((v) => [v.name, swatch(v), v.label])),
    checks("Seeds", "seeds", seedsOfAll.map((seed) => [seed, String(seed)])),
    figure, element("div", { class: "slider" }, element("label", { for: stepId }, "values at step"), slider, output), readout,
    ...data.left_out.map((line) => element("p", { class: "note" }, line)));

  let width = 0;
  function draw() {
    width = Math.max(320, Math.min(figure.clientWidth || 720, 1000));
    figure.replaceChildren(drawChart(width));
    slider.max = values.steps.length - 1;
    slider.value = values.at;
    slider.setAttribute("aria-valuetext", `step ${values.step}`);
    output.textContent = values.step;
    const rows = data.variants.filter((v) => values.curves[v.name]).map((variant) => {
      const { mean, half, seeds } = values.curves[variant.name].over[values.at];
      const cells = [Number.isFinite(mean) ? text(mean) : "", Number.isFinite(half) ? `\u00b1 ${text(half)}` : "", String(seeds)];
      return element("tr", {}, element("th", { scope: "row" }, swatch(variant), " ", variant.label), cells.map((c) => element("td", {}, c)));
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
