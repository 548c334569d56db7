// Eq. 7, 10 and 15-18 for any beta; every other method comes as tables. Tests hold all of it against asymlib.

const positive = (p, beta) => ((1 - p) / p) ** beta;
const negative = (p, beta) => -((p / (1 - p)) ** beta);

function flippedPositive(p, groupSize, beta) {
  const last = (groupSize - 1) / groupSize, atLast = positive(1 - last, beta);
  const step = atLast - positive(1 - (groupSize - 2) / groupSize, beta);
  return p <= last ? positive(1 - p, beta) : atLast + step - step * groupSize * (1 - p);
}
const flippedNegative = (p, groupSize, beta) => -flippedPositive(1 - p, groupSize, beta);

const CURVES = {
  beta: (p, s) => [positive(p, s.beta_pos), negative(p, s.beta_neg)],
  flipped_positive: (p, s) => [flippedPositive(p, s.group_size, s.beta_pos), negative(p, s.beta_neg)],
  flipped_negative: (p, s) => [positive(p, s.beta_pos), flippedNegative(p, s.group_size, s.beta_neg)],
};
const FLIPS = { beta: "none", flipped_positive: "right curve flipped", flipped_negative: "wrong curve flipped" };
const DISTRIBUTIONS = { "uniform": [1, 1], "hard-heavy": [1, 3], "easy-heavy": [3, 1], "all or nothing": [0.4, 0.4] };
const SLIDERS = {
  beta_pos: ["β_pos (right)", 0, 1.5, 0.05, 2], beta_neg: ["β_neg (wrong)", 0, 1.5, 0.05, 2],
  group_size: ["group size G", 3, 32, 1, 0], a: ["Beta: a", 0.2, 6, 0.1, 1], b: ["Beta: b", 0.2, 6, 0.1, 1],
};

// (pos, neg) for k = 0..G; what no rollout can get, pos[0] and neg[G], is 0. null if the method does not allow this G.
function tableOf(settings, groupSize) {
  if (settings.tables) return settings.tables[groupSize] || null;
  const rows = Array.from({ length: groupSize + 1 }, (_, k) => CURVES[settings.curve](k / groupSize, { ...settings, group_size: groupSize }));
  const [pos, neg] = [0, 1].map((side) => rows.map((row) => row[side]));
  pos[0] = neg[groupSize] = 0;
  return [pos, neg];
}

// Root mean square difference over the 2 G entries that a rollout can get.
function distance([posA, negA], [posB, negB]) {
  let sum = 0;
  for (let k = 0; k < posA.length; k++) sum += (posA[k] - posB[k]) ** 2 + (negA[k] - negB[k]) ** 2;
  return Math.sqrt(sum / (2 * (posA.length - 1)));
}

// P(k of G right) when prompts' accuracies are Beta(a, b): the beta-binomial, by its ratio of neighbours.
function sharesOfGroups(groupSize, a, b) {
  const shares = [1];
  for (let k = 0; k < groupSize; k++) shares.push((shares[k] * (groupSize - k) * (k + a)) / ((k + 1) * (groupSize - k - 1 + b)));
  const total = shares.reduce((sum, s) => sum + s);
  return shares.map((s) => s / total);
}

function evaluate(state, methods) {
  const { group_size: G, a, b } = state, chosen = methods.find((m) => m.name === state.fixed);
  const [pos, neg] = tableOf(chosen || state, G), ks = pos.map((_, k) => k);
  const weight_right = ks.map((k) => k * pos[k]), weight_wrong = ks.map((k) => -(G - k) * neg[k]);
  const shares = sharesOfGroups(G, a, b), expected = (values) => ks.reduce((sum, k) => sum + shares[k] * values[k], 0);
  const mean_right = expected(weight_right) / expected(ks), mean_wrong = -expected(weight_wrong) / expected(ks.map((k) => G - k));
  const distances = {};
  for (const method of methods) {
    const table = tableOf(method, G);
    distances[method.name] = table && distance([pos, neg], table);
  }
  const allowed = methods.filter((m) => distances[m.name] !== null);
  const least = Math.min(...allowed.map((m) => distances[m.name]));
  const nearest = allowed.filter((m) => distances[m.name] <= least + 1e-9).map((m) => m.name);
  return { ...state, pos, neg, weight_right, weight_wrong, shares, mean_right, mean_wrong, distances, nearest, nearest_distance: least };
}

const UP = "M0-5L4.5 3.5H-4.5Z", DOWN = "M0 5L4.5-3.5H-4.5Z"; // a right rollout's mark, a wrong one's

function drawCurves(v, methods) {
  const dotted = { nearest: v.nearest[0] }[v.reference] ?? v.reference, other = methods.find((m) => m.name === dotted);
  const table = other && tableOf(other, v.group_size), reference = table && distance(table, [v.pos, v.neg]) > 0.005 && table;
  const G = v.group_size, all = [v.pos, v.neg, ...(reference || [])].flat(), low = Math.min(0, ...all), high = Math.max(0, ...all), room = 0.06 * (high - low || 1);
  const xticks = [0, 0.25, 0.5, 0.75, 1].map((p) => [p, String(p)]);
  const chart = axes({ title: "Advantage of a rollout", xlabel: "group accuracy k/G", ylabel: "advantage", xlim: [-0.02, 1.02], ylim: [low - room, high + room], xticks });
  [["right", v.pos, 1, G, UP, 0], ["wrong", v.neg, 0, G - 1, DOWN, 1]].forEach(([side, values, first, last, mark, which]) => {
    const ks = values.map((_, k) => k).slice(first, last + 1);
    if (reference) chart.front.append(element("path", { class: "reference", d: path(ks.map((k) => [chart.x(k / G), chart.y(reference[which][k])])) }));
    const fine = Array.from({ length: 40 * (last - first) + 1 }, (_, i) => (first + i / 40) / G);
    const points = v.fixed ? ks.map((k) => [k / G, values[k]]) : fine.map((p) => [p, CURVES[v.curve](p, v)[which]]);
    chart.front.append(element("path", { class: `curve ${side}`, d: path(points.map(([p, advantage]) => [chart.x(p), chart.y(advantage)])) }));
    for (const k of ks) {
      const note = element("title", {}, `${k} of ${G} right: a ${side} rollout gets ${text(values[k])}`);
      chart.front.append(element("path", { class: `mark ${side}`, d: mark, transform: `translate(${chart.x(k / G)} ${chart.y(values[k])})` }, note));
    }
  });
  return chart.root;
}

// Two bars for every k, or one.
function drawBars(v, { title, ylabel, series }) {
  const G = v.group_size, high = Math.max(...series.flatMap(([, values]) => values)) || 1, every = Math.ceil((G + 1) / 9);
  const xticks = Array.from({ length: G + 1 }, (_, k) => [k, String(k)]).filter(([k]) => k % every === 0);
  const chart = axes({ title, xlabel: `right rollouts k of ${G}`, ylabel, xlim: [-0.6, G + 0.6], ylim: [0, 1.05 * high], xticks });
  const width = 0.8 / series.length;
  series.forEach(([side, values, name], i) => values.forEach((value, k) => {
    const left = chart.x(k - 0.4 + i * width), top = chart.y(value);
    const note = element("title", {}, `${k} of ${G} right: ${name} ${text(value)}`);
    chart.front.append(element("rect", { class: `bar ${side}`, x: left, y: top, width: chart.x(width) - chart.x(0) - 0.5, height: Math.max(chart.y(0) - top, 0) }, note));
  }));
  return chart.root;
}

const swatch = (side) => element("svg", { class: "key", viewBox: "-15 -7 30 14", "aria-hidden": "true" },
  element("path", { class: `curve ${side}`, d: "M-14 0H14" }), element("path", { class: `mark ${side}`, d: side === "right" ? UP : DOWN }));

function build(root) {
  const { methods, group_sizes } = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const start = methods.find((m) => m.name === "asymgrpo");
  const first = { curve: start.curve, beta_pos: start.beta_pos, beta_neg: start.beta_neg, group_size: 8, a: 1, b: 1, fixed: null, reference: "grpo" };
  const REFERENCES = { grpo: "GRPO", nearest: "nearest method", none: "none" }, address = addressOf(root), state = { ...first, ...asked() };
  let values, inputs = {}, presets = {}, distributions = {}, flips = {};

  // What the address asks for and the sliders can show.
  function asked() {
    const lists = { curve: Object.keys(CURVES), reference: Object.keys(REFERENCES), fixed: methods.filter((m) => m.tables).map((m) => m.name) };
    const fits = (name, value) => {
      if (lists[name]) return lists[name].includes(value);
      const [low, high] = name === "group_size" ? group_sizes : SLIDERS[name].slice(1);
      return value !== "" && low <= value && value <= high && (name !== "group_size" || Number.isInteger(Number(value)));
    };
    const given = [...address.read].filter(([name, value]) => name in first && fits(name, value));
    return Object.fromEntries(given.map(([name, value]) => [name, lists[name] ? value : Number(value)]));
  }

  function set(changes) {
    Object.assign(state, changes);
    const fixed = methods.find((m) => m.name === state.fixed);
    if (fixed && !tableOf(fixed, state.group_size)) state.fixed = null;
    values = evaluate(state, methods);
    draw();
    address.write(Object.entries(state).filter(([name, value]) => value !== first[name]));
  }
  const free = (changes) => set({ fixed: null, ...changes });

  function slider(name) {
    const [label, low, high, step] = SLIDERS[name], id = uniqueId(), side = { beta_pos: "right", beta_neg: "wrong" }[name] || "";
    const [min, max] = name === "group_size" ? group_sizes : [low, high], change = name.startsWith("beta") ? free : set;
    const input = element("input", { type: "range", id, name, min, max, step, oninput: () => change({ [name]: Number(input.value) }) });
    const output = element("output", { for: id });
    inputs[name] = [input, output];
    return element("div", { class: `slider ${side}` }, element("label", { for: id }, symbols(label)), input, output);
  }
  const button = (store, name, label, onclick) => (store[name] = element("button", { type: "button", "aria-label": label, onclick }, symbols(label)));
  const group = (legend, ...content) => element("fieldset", {}, element("legend", {}, legend), ...content);
  const radios = uniqueId();
  const flip = (name) => {
    const input = element("input", { type: "radio", name: radios, value: name, onchange: () => free({ curve: name }) });
    flips[name] = input;
    return element("label", {}, input, FLIPS[name]);
  };
  const choose = (m) => set(m.tables ? { fixed: m.name } : { fixed: null, curve: m.curve, beta_pos: m.beta_pos, beta_neg: m.beta_neg });

  const choices = (some) => element("div", { class: "choices methods" }, some.map((m) => button(presets, m.name, m.label, () => choose(m))));
  const dotted = uniqueId(), reference = element("select", { id: dotted, name: "reference", onchange: () => set({ reference: reference.value }) },
    Object.entries(REFERENCES).map(([value, label]) => element("option", { value, selected: value === state.reference }, label)));

  const curves = element("div"), charts = element("div", { class: "inside" }), result = element("div", { class: "result", "aria-live": "polite" });
  const table = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All values as a table" });
  root.append(
    group("Methods of Table 1", choices(methods.filter((m) => m.of_table_1))),
    element("details", {}, element("summary", {}, "Their relatives"), choices(methods.filter((m) => !m.of_table_1))),
    element("div", { class: "beside" },
      element("div", {}, group("Curves", slider("beta_pos"), slider("beta_neg"), slider("group_size")),
        group("Flip", element("div", { class: "choices" }, Object.keys(FLIPS).map(flip))),
        element("div", { class: "pick" }, element("label", { for: dotted }, "Dotted"), reference)),
      curves),
    result,
    element("div", { class: "charts" },
      group("How prompts' accuracy p is spread", element("div", { class: "choices" },
        Object.entries(DISTRIBUTIONS).map(([name, [a, b]]) => button(distributions, name, name, () => set({ a, b })))), slider("a"), slider("b")),
      charts),
    element("details", {}, element("summary", {}, "All values as a table"), table));

  function draw() {
    const v = values, G = v.group_size;
    for (const [name, [input, output]] of Object.entries(inputs)) {
      input.value = state[name];
      output.textContent = state[name].toFixed(SLIDERS[name][4]);
    }
    for (const [name, input] of Object.entries(flips)) input.checked = !v.fixed && name === v.curve;
    for (const m of methods) {
      presets[m.name].setAttribute("aria-pressed", v.fixed ? m.name === v.fixed : v.distances[m.name] !== null && v.distances[m.name] < 1e-9);
      presets[m.name].disabled = v.distances[m.name] === null;
    }
    for (const [name, [a, b]] of Object.entries(DISTRIBUTIONS)) distributions[name].setAttribute("aria-pressed", a === v.a && b === v.b);

    const names = v.nearest.map((name) => methods.find((m) => m.name === name).label), exact = v.nearest_distance < 1e-9;
    const others = names.length > 1 ? ` (the same curves: ${names.slice(1).join(", ")})` : "";
    result.replaceChildren(
      element("p", {}, exact ? "This is " : "Nearest method: ", element("strong", {}, symbols(names[0])), symbols(others), exact ? "." : `, ${text(v.nearest_distance)} away.`),
      element("p", {}, swatch("right"), " mean push on a right rollout ", element("strong", {}, text(v.mean_right)), ", ",
        swatch("wrong"), " on a wrong one ", element("strong", {}, text(v.mean_wrong)), "."));

    const series = [["right", v.weight_right, "k A+ ="], ["wrong", v.weight_wrong, "(G \u2212 k) |A\u2212| ="]];
    const drawn = [
      [drawCurves(v, methods), `Advantage against group accuracy. Right rollouts from ${text(v.pos[1])} at 1 of ${G} right to ${text(v.pos[G])} at ${G} of ${G}; wrong ones from ${text(v.neg[0])} at 0 of ${G} to ${text(v.neg[G - 1])} at ${G - 1} of ${G}.`],
      [drawBars(v, { title: "Push of a whole group", ylabel: "sum of |advantage|", series }), "Sum of the advantages' sizes over a group's right and over its wrong rollouts, by the number of right rollouts."],
      [drawBars(v, { title: "How often a group has k right", ylabel: "% of groups", series: [["plain", v.shares.map((s) => 100 * s), "% of groups:"]] }), "Share of groups by the number of right rollouts."],
    ];
    const [main, ...bars] = drawn.map(([svg, description]) => (svg.setAttribute("aria-label", description), svg));
    curves.replaceChildren(main);
    charts.replaceChildren(...bars);
    const heads = ["k", "A+ (right)", "A\u2212 (wrong)", "k A+", "(G\u2212k) |A\u2212|", "share of groups"];
    table.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, heads.map((h) => element("th", { scope: "col" }, h)))),
      element("tbody", {}, v.pos.map((_, k) => element("tr", {}, element("th", { scope: "row" }, String(k)),
        [k ? text(v.pos[k]) : "", k < G ? text(v.neg[k]) : "", text(v.weight_right[k]), text(v.weight_wrong[k]), text(v.shares[k])].map((t) => element("td", {}, t)))))));
  }

  set({});
  root.asymlibExplorer = { values: () => values, set };
  window.asymlibExplorer = window.asymlibExplorer || root.asymlibExplorer;
}

document.querySelectorAll(".asymlib-explorer:not([data-ready])").forEach((root) => {
  root.dataset.ready = "true";
  build(root);
});
