// ---- incidents over the steps -----------------------------------------------------------------------------------------------
const OPEN_EVENTS = 12;

function incidents(place) {
  const happened = DATA.curves.filter((curve) => curve.section === "Incidents");
  if (happened.length) add(place, chartsOf("all", happened));
  for (const [i, run] of RUNS.entries()) {
    if (COMPARED) add(place, element("h3", { class: "name" }, named(i)));
    if (run.events.length) add(place, eventTable(run));
    else if (!happened.length) add(place, soft("None: no actor was replaced and no prompt failed."));
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
