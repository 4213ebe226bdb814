"use strict";
// The two charts: 90 columns of 10 s each, the newest on the right. They are drawn again at each update, from numbers
// only.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 160, TOP = 8, BOTTOM = 22, LEFT = 52, RIGHT = 4;

function draw(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function seconds(value) {
  if (value < 0.000995) return `${Math.round(value * 1e6)} µs`;
  if (value < 0.0995) return `${+(value * 1e3).toPrecision(2)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1e3)} ms`;
  return `${+value.toPrecision(value < 10 ? 2 : 3)} s`;
}

// Returns the next of 1, 2, 5, 10, 20, 50 …, and at least 4, so that a single request gives no tall bar.
function roundUp(value) {
  const decade = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return Math.max(4, [1, 2, 5, 10].map((step) => step * decade).find((step) => step >= value));
}

// Draws frame, grid and time axis. In the result, `x` is a column's left side, and `y` takes 0 to 1.
function frame(host, columns, lines) {
  const width = Math.max(host.clientWidth, 200);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true", focusable: "false" });
  const step = (width - LEFT - RIGHT) / columns;
  const x = (column) => LEFT + column * step;
  const y = (part) => HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM);
  for (const [part, label] of lines) {
    svg.append(draw("line", { x1: LEFT, x2: width - RIGHT, y1: y(part), y2: y(part), class: "grid" }));
    svg.append(draw("text", { x: LEFT - 8, y: y(part) + 4, "text-anchor": "end" }, label));
  }
  for (const [minutes, anchor] of [[15, "start"], [10, "middle"], [5, "middle"], [0, "end"]]) {
    const at = x(columns * (1 - minutes / 15));
    svg.append(draw("text", { x: at, y: HEIGHT - 4, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now"));
  }
  const bar = (column, from, to, kind) => {
    const [low, high] = [y(from), y(to)];
    const gap = step > 4 ? 1 : step * 0.2;
    svg.append(draw("rect", { x: x(column), y: high, width: step - gap, height: Math.max(low - high, 0), class: kind }));
  };
  return { svg, step, bar, x };
}

function needle(place, column) {
  if (column === null) return;
  const at = place.x(column) + place.step / 2;
  place.svg.append(draw("line", { x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM, class: "needle" }));
}

function drawRequests(host, history, column) {
  const top = roundUp(Math.max(...history.requests));
  const place = frame(host, history.requests.length, [[0, "0"], [0.5, count(top / 2)], [1, count(top)]]);
  history.requests.forEach((all, at) => {
    if (!all) return;
    const failed = errorsAt(history, at), gone = history.cancelled[at];
    // One error among thousands must be visible.
    const low = failed ? Math.max(failed / top, 0.025) : 0;
    const high = Math.max((all - gone) / top, low);
    place.bar(at, 0, low, "fail");
    place.bar(at, low, high, "fine");
    place.bar(at, high, Math.max(all / top, high), "gone");
  });
  needle(place, column);
  host.replaceChildren(place.svg);
}

function drawLatency(host, history, column) {
  const known = history.p50.flatMap((p50, at) => (p50 === null ? [] : [p50, history.p99[at]]));
  if (!known.length) known.push(0.001, 0.1);
  const low = Math.floor(Math.log10(Math.min(...known)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...known))), low + 1);
  const part = (value) => (Math.log10(value) - low) / (high - low);
  const lines = [];
  for (let decade = low; decade <= high; decade++) lines.push([part(10 ** decade), seconds(10 ** decade)]);
  const place = frame(host, history.p50.length, lines);
  history.p50.forEach((p50, at) => {
    if (p50 === null) return;
    const [half, most, tail] = [p50, history.p90[at], history.p99[at]].map(part);
    place.bar(at, most, tail, "tail");
    place.bar(at, half, most, "most");
    place.bar(at, half - 0.012, half + 0.012, "half");
  });
  needle(place, column);
  host.replaceChildren(place.svg);
}

// Returns the column under a pointer.
function columnAt(host, event, columns) {
  const box = host.getBoundingClientRect();
  const part = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
  return Math.min(columns - 1, Math.max(0, Math.floor(part * columns)));
}
