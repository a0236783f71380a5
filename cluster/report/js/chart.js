// ---- one chart: a line for each run -----------------------------------------------------------------------------------------
const CHART = { width: 360, height: 176, left: 44, right: 8, top: 8, bottom: 22 };

// The mean over neighbours of the same stage: those of the other were trained in another way.
function smooth(values, border) {
  const stages = [values.slice(0, border), values.slice(border)];
  if (stages.every((stage) => known(stage).length < 40)) return values;
  return stages.flatMap((stage) => {
    const reach = Math.floor(known(stage).length / 40);
    if (reach < 1) return stage;
    return stage.map((value, i) => (value === null ? null : mean(stage.slice(Math.max(0, i - reach), i + reach + 1))));
  });
}
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const marks = [];
  for (let mark = Math.ceil(low / step - 1e-9) * step; mark <= high + step * 1e-6; mark += step) {
    marks.push(Math.abs(mark) < step * 1e-6 ? 0 : +mark.toPrecision(12));
  }
  return marks;
}
// As many decimals as tell the marks of an axis apart; very large and very small ones with one exponent for all.
function tickTexts(marks) {
  const size = Math.max(...marks.map(Math.abs));
  const power = size > 0 && (size < 0.001 || size >= 1e6) ? Math.floor(Math.log10(size)) : 0;
  const scaled = marks.map((mark) => mark / 10 ** power);
  const gap = scaled.length > 1 ? scaled[1] - scaled[0] : 1;
  let decimals = 0;
  const isWhole = (number) => Math.abs(number - Math.round(number)) < 1e-6 * number;
  while (decimals < 9 && !isWhole(gap * 10 ** decimals)) decimals++;
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return scaled.map((mark) => (mark === 0 ? "0" : `${mark.toLocaleString("en", digits)}${power ? `e${power}` : ""}`));
}
function scales(series, domain) {
  let [low, high] = bounds(series.flatMap((one) => [...known(one.values), ...known([one.floor])]));
  const least = 1e-3 * Math.max(Math.abs(low), Math.abs(high)); // what differs by less is drawn as equal
  const pad = high - low > least ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  [low, high] = [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
  let [first, last] = domain;
  if (first === last) last = first + 1;
  const { width, height, left, right, top, bottom } = CHART;
  return {
    low, high, first, last,
    x: (step) => left + ((step - first) / (last - first)) * (width - left - right),
    y: (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom),
    step: (part) => first + ((part * width - left) / (width - left - right)) * (last - first),
  };
}
// series: one for each run, {steps, values, border, floor, dots, exact}; border: GRPO's first step; domain: [first, last] step
function chart(title, about, series, domain = null) {
  const caption = element("figcaption", {}, element("b", {}, title), element("small", {}, about));
  const used = series.flatMap((one) => one.steps.filter((_, i) => isKnown(one.values[i])));
  if (!used.length) return element("figure", {}, caption, soft("no figures"));
  const scale = scales(series, domain ?? bounds(used));
  const ranges = series.map((one, i) => [i, known(one.values)]).filter(([, values]) => values.length)
    .map(([i, values]) => `${COMPARED ? `${RUNS[i].name} ` : ""}${formatted(values[0])} to ${formatted(values[values.length - 1])}`);
  const svg = element("svg", { viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", tabindex: "0",
    "aria-label": `${title}, ${about}: ${ranges.join(", ")}` }, axes(scale, series), series.map((one, i) => line(one, i, scale)));
  return element("figure", {}, caption, svg, readout(svg, series, [...new Set(used)].sort((a, b) => a - b), scale));
}
function axes({ low, high, first, last, x, y }, series) {
  const { width, height, left, right, top, bottom } = CHART;
  const borders = [...new Set(series.map((one) => one.border))].filter((step) => step > first && step < last);
  const marks = ticks(low, high, 4);
  const texts = tickTexts(marks);
  return [
    marks.map((mark, i) => [element("line", { class: "grid", x1: left, x2: width - right, y1: y(mark), y2: y(mark) }),
      element("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, texts[i])]),
    ticks(first, last, 5).filter(Number.isInteger).map((mark) =>
      element("text", { x: x(mark), y: height - 6, "text-anchor": "middle" }, mark.toLocaleString("en"))),
    borders.map((step) => element("line", { class: "stage", x1: x(step), x2: x(step), y1: top, y2: height - bottom })),
  ];
}
function line(one, run, { x, y }) {
  const border = one.dots ? 0 : one.steps.findIndex((step) => step >= one.border);
  const path = (values) => values.map((value, i) => (isKnown(value)
    ? `${i && i !== border && isKnown(values[i - 1]) ? "L" : "M"}${x(one.steps[i]).toFixed(1)} ${y(value).toFixed(1)}` : "")).join("");
  const shown = one.dots || one.exact ? one.values : smooth(one.values, border < 0 ? one.values.length : border);
  const dots = one.dots || known(one.values).length === 1 ? one.values : [];
  const floor = isKnown(one.floor) ? { x1: CHART.left, x2: CHART.width - CHART.right, y1: y(one.floor), y2: y(one.floor) } : null;
  return [
    shown === one.values ? null : element("path", { class: "raw", d: path(one.values), stroke: stroke(run).stroke }),
    element("path", { class: "line", d: path(shown), ...stroke(run) }),
    floor && element("line", { class: "floor", ...floor, stroke: stroke(run).stroke }),
    dots.map((value, i) => (isKnown(value) ? element("circle", { cx: x(one.steps[i]), cy: y(value), r: 3, fill: stroke(run).stroke }) : null)),
  ];
}

// ---- its figures, read by pointer or keyboard -------------------------------------------------------------------------------
// A run's figure at a step, or its last one before: runs need not have figures at the same steps.
function figureAt(one, step) {
  for (let i = one.steps.length - 1; i >= 0; i--) {
    if (one.steps[i] <= step && isKnown(one.values[i])) return [one.steps[i], one.values[i]];
  }
  return null;
}
function readout(svg, series, marks, scale) {
  const told = element("output", {});
  const cursor = element("line", { class: "cursor", y1: CHART.top, y2: CHART.height - CHART.bottom, visibility: "hidden" });
  svg.append(cursor);
  let at = null;
  function read(index) {
    at = Math.max(0, Math.min(marks.length - 1, index));
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, scale.x(marks[at]));
    cursor.setAttribute("visibility", "visible");
    tell(marks[at]);
  }
  function tell(step) {
    const figures = series.map((one, i) => [i, figureAt(one, step)]).filter(([, found]) => found);
    told.textContent = `step ${step.toLocaleString("en")}: `;
    add(told, figures.map(([i, [from, value]]) => {
      const text = `${formatted(value)}${from === step ? "" : ` (step ${from.toLocaleString("en")})`}`;
      return COMPARED ? named(i, ` ${text}  `) : text;
    }));
  }
  function leave() {
    cursor.setAttribute("visibility", "hidden");
    at = null;
    tell(marks[marks.length - 1]);
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const step = scale.step((event.clientX - box.left) / box.width);
    read(marks.reduce((near, mark, i) => (Math.abs(mark - step) < Math.abs(marks[near] - step) ? i : near), 0));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    read(at === null && Number.isFinite(move) ? marks.length - 1 : (at ?? 0) + move);
  });
  leave();
  return told;
}
