// ---- settings ---------------------------------------------------------------------------------------------------------------
function settings(place) {
  const all = Object.keys(DATA.defaults);
  const text = (value) => (isKnown(value) ? (typeof value === "string" ? value : JSON.stringify(value)) : "none");
  const differ = COMPARED
    ? all.filter((name) => new Set(RUNS.map((run) => JSON.stringify(run.settings[name]))).size > 1) : RUNS[0].changed;
  const columns = COMPARED ? RUNS.map((run) => [run.name, run.settings]) : [["this run", RUNS[0].settings], ["default", DATA.defaults]];
  const heads = () => [element("th", {}, "setting"), columns.map(([name]) => element("th", { class: "text" }, name))];
  const listed = (names) => scrolling("Settings", "scroll framed", table(heads(), names.map((name) =>
    element("tr", {}, element("td", { class: "setting" }, element("code", {}, name)),
      columns.map(([, values]) => element("td", { class: "text" }, text(values[name])))))));
  add(place, [differ.length ? [soft(COMPARED ? "Where the runs differ:" : "Where the run differs from the defaults:"), listed(differ)]
    : soft(COMPARED ? "The runs do not differ." : "All settings are the defaults."),
  element("details", {}, element("summary", {}, `All ${all.length} settings`), listed(all)),
  element("footer", {}, "Written by LAPDOG-Ray. One file; nothing is loaded from elsewhere.")]);
}
