"use strict";
// Text reaches the page through textContent alone: what a model wrote is never markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const COMPARED = RUNS.length > 1;
const SVG = new Set(["svg", "path", "line", "text", "circle"]);
const COLOURS = 8;
const DASHES = [null, "7 3", "2 3", "9 3 2 3"]; // from the 9th run on colours come again, with another pattern of the line

function element(tag, attributes = {}, ...children) {
  const made = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (isKnown(value) && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  add(made, children);
  return made;
}
// Children may be lists of any length, which arguments may not.
function add(parent, child) {
  if (Array.isArray(child)) for (const one of child) add(parent, one);
  else if (isKnown(child)) parent.append(child);
}
function soft(...children) {
  return element("p", { class: "soft" }, children);
}
// A wide table or figure scrolls by itself, by keyboard too.
function scrolling(label, kind, ...children) {
  return element("div", { class: kind, tabindex: "0", role: "region", "aria-label": label }, children);
}
function table(heads, rows) {
  return element("table", {}, element("thead", {}, element("tr", {}, heads)), element("tbody", {}, rows));
}

const isKnown = (value) => value !== null && value !== undefined;
const known = (values) => values.filter(isKnown);
const total = (values) => values.reduce((sum, value) => sum + value, 0);
const mean = (values) => total(known(values)) / known(values).length;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// [lowest, highest] of any number of values; nulls if there are none.
function bounds(values) {
  return values.reduce(([low, high], value) => [low === null || value < low ? value : low, high === null || value > high ? value : high],
    [null, null]);
}
function formatted(value) {
  if (!isKnown(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(1);
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(size >= 100 ? 4 : 3));
}
// How to write the figures of one column: all with as many decimals as give the largest three digits.
function inColumn(values) {
  const [, largest] = bounds([0, ...known(values).map(Math.abs)]);
  if (largest < 0.001 || largest >= 1000 || known(values).every(Number.isInteger)) return formatted;
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(largest)));
  return (value) => (isKnown(value) ? value.toFixed(decimals).replace(/^-(?=[0.]+$)/, "") : "–");
}
function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
function moment(seconds) {
  const date = new Date(isKnown(seconds) ? seconds * 1000 : NaN);
  return Number.isNaN(date.getTime()) ? "–" : date.toISOString().slice(0, 19).replace("T", " ");
}

// How the run of a number is drawn, in charts and legends alike.
function stroke(run) {
  return { stroke: `var(--c${run % COLOURS})`, "stroke-dasharray": DASHES[Math.floor(run / COLOURS) % DASHES.length] };
}
function swatch(run) {
  return element("svg", { class: "swatch", viewBox: "0 0 24 4", "aria-hidden": "true" },
    element("line", { x1: 0, x2: 24, y1: 2, y2: 2, "stroke-width": 4, ...stroke(run) }));
}
function named(run, ...more) {
  return element("span", { class: "named" }, swatch(run), RUNS[run].name, more);
}
function legend(extra = () => "") {
  return element("ul", { class: "legend" }, RUNS.map((run, i) => element("li", {}, named(i, extra(run)))));
}
