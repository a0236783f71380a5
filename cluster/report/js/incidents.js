// ---- incidents over the steps -----------------------------------------------------------------------------------------------
const OPEN_EVENTS = 12;

function incidents(place) {
  for (const [i, run] of RUNS.entries()) {
    const lanes = Object.entries(DATA.incidents).map(([name, about]) => [about, run.incidents[name]]);
    lanes.push(["prompts failed", run.failed_prompts.map(([step, id]) => [step, step, 1, id])]);
    const busy = lanes.filter(([, marks]) => marks.length);
    if (COMPARED) add(place, element("h3", { class: "name" }, named(i)));
    if (busy.length) add(place, lanesFigure(run, busy));
    if (run.failures > run.failed_prompts.length) {
      add(place, soft(`The first ${run.failed_prompts.length} of ${count(run.failures, "failed prompt")} are marked; `,
        "all are in failed_prompts.jsonl."));
    }
    if (run.events.length) add(place, eventTable(run));
    if (!busy.length && !run.events.length) add(place, soft("None: no actor was replaced and no prompt failed."));
  }
}
function eventTable(run) {
  const heads = [element("th", {}, "time (UTC)"), element("th", {}, "step"), element("th", { class: "text" }, "event")];
  const [all, left] = [run.all_events.toLocaleString("en"), run.all_events > run.events.length];
  return element("details", { open: run.events.length <= OPEN_EVENTS },
    element("summary", {}, left ? `The last ${run.events.length} of ${all} events; all are in events.jsonl` : count(run.events.length, "event")),
    scrolling("Events", "events", table(heads, run.events.map((row) => element("tr", {}, element("td", {}, moment(row.time)),
      element("td", {}, row.step.toLocaleString("en")), element("td", { class: "text" }, row.text))))));
}
const stepsOf = (first, last) => (first === last ? `at step ${first.toLocaleString("en")}`
  : `from step ${first.toLocaleString("en")} to ${last.toLocaleString("en")}`);

// lanes: [what it shows, [[first step, last step, how often, of what], ...]]
function lanesFigure(run, lanes) {
  const [width, left, row] = [900, 190, 26];
  const height = lanes.length * row + 26;
  const [, last] = bounds([1, run.steps, ...lanes.map(([, marks]) => marks[marks.length - 1][1])]);
  const x = (step) => left + (step / last) * (width - left - 10);
  const summary = ([about, marks]) =>
    `${about}: ${total(marks.map(([, , times]) => times)).toLocaleString("en")}, ${stepsOf(marks[0][0], marks[marks.length - 1][1])}`;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": lanes.map(summary).join("; ") });
  lanes.forEach(([about, marks], lane) => {
    const y = lane * row + row / 2;
    add(svg, [element("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, about),
      element("line", { class: "grid", x1: left, x2: width - 10, y1: y, y2: y }),
      marks.map(([from, to, times, what]) => element("circle", { class: "incident", cx: x((from + to) / 2), cy: y, r: Math.min(9, 3 + times) },
        element("title", {}, `${about}: ${what ?? times.toLocaleString("en")}, ${stepsOf(from, to)}`)))]);
  });
  add(svg, ticks(0, last, 8).filter(Number.isInteger).map((mark) =>
    element("text", { x: x(mark), y: height - 4, "text-anchor": "middle" }, mark.toLocaleString("en"))));
  return element("figure", { class: "wide" }, scrolling("Incidents over the steps", "scroll", element("div", { class: "lanes" }, svg)));
}
