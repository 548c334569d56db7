// Elements and a small chart, shared by the explorer and the run browser. Text and grid take the page's own colour.

function element(tag, attributes = {}, ...children) {
  const isDrawn = ["svg", "g", "path", "line", "text", "rect", "title", "desc"].includes(tag);
  const made = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat());
  return made;
}

const uniqueId = (() => {
  let count = document.querySelectorAll("[id^=asymlib-]").length;
  return () => `asymlib-${++count}`;
})();

// 'β_pos' with its subscript, as the figures set it.
const symbols = (words) => {
  const parts = words.split(/β_(pos|neg)/); // every second one is a subscript
  return element("span", {}, parts.flatMap((part, i) => (i % 2 ? ["β", element("sub", {}, part)] : part)));
};

const text = (value, digits = 3) => value.toFixed(digits).replace("-", "\u2212");

function niceTicks(low, high, count = 5) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= rough * 0.999) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0));
  return ticks.map((value) => [value, text(value, digits)]);
}

// Axes of a chart in a viewBox of width x height; x and y map data to it, `front` takes what is drawn.
function axes({ title, xlabel, ylabel, xlim, ylim, xticks, width = 360, height = 260 }) {
  const edge = { left: 46, right: 10, top: 26, bottom: 40 };
  const x = (v) => edge.left + ((v - xlim[0]) / (xlim[1] - xlim[0])) * (width - edge.left - edge.right);
  const y = (v) => height - edge.bottom - ((v - ylim[0]) / (ylim[1] - ylim[0])) * (height - edge.top - edge.bottom);
  const grid = element("g", { class: "grid" }), front = element("g");
  for (const [value, label] of niceTicks(...ylim)) {
    grid.append(element("line", { x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value), class: value === 0 && "zero" }));
    grid.append(element("text", { x: edge.left - 5, y: y(value) + 4, "text-anchor": "end" }, label));
  }
  for (const [value, label] of xticks || niceTicks(...xlim)) {
    grid.append(element("text", { x: x(value), y: height - edge.bottom + 16, "text-anchor": "middle" }, label));
  }
  const middle = (edge.top + height - edge.bottom) / 2;
  grid.append(
    element("text", { x: edge.left, y: 14, class: "title" }, title),
    element("text", { x: (edge.left + width - edge.right) / 2, y: height - 6, "text-anchor": "middle" }, xlabel),
    element("text", { transform: `translate(11 ${middle}) rotate(-90)`, "text-anchor": "middle" }, ylabel),
  );
  const root = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, grid, front);
  return { root, x, y, front, edge, width, height };
}

// 'M x y L x y ...' through the points that are finite; a gap lifts the pen.
function path(points) {
  let down = false;
  return points.map(([x, y]) => {
    if (!Number.isFinite(x) || !Number.isFinite(y)) return (down = false), "";
    const command = `${down ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    down = true;
    return command;
  }).join("");
}

// The state in the page's address, to be shared, where the page gives it over (data-address); elsewhere nothing is read or written.
function addressOf(root) {
  if (!root.closest("[data-address]")) return { read: new URLSearchParams(), write() {} };
  let waiting;
  const now = (pairs) => history.replaceState(null, "", `?${new URLSearchParams(pairs)}${location.hash}`);
  return { read: new URLSearchParams(location.search), write(pairs) { clearTimeout(waiting); waiting = setTimeout(now, 200, pairs); } };
}
