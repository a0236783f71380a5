// ---- head of the page -------------------------------------------------------------------------------------------------------
function best(run) {
  return run.evaluations.findLast((row) => row.step === run.best);
}
function constantReply(run) {
  return run.evaluations.map((row) => row.constant_reply).find(Boolean);
}

function head(top) {
  document.title = `${RUNS.map((run) => run.name).join(", ")} – LAPDOG-Ray`;
  add(top, element("h1", {}, COMPARED ? `${RUNS.length} runs compared` : RUNS[0].name));
  if (COMPARED) {
    add(top, legend((run) => ` ${count(run.steps, "step")}, ${duration(run.seconds)} of training`));
    add(document.querySelector("nav"), legend());
    return;
  }
  const run = RUNS[0];
  add(top, soft(`${run.model}; ${run.settings["data.train"] || "demo"}; `, element("code", {}, run.path)));
  const [first, peak, floor] = [run.evaluations[0], best(run), constantReply(run)];
  const facts = [
    ["Steps", run.steps.toLocaleString("en"), `${duration(run.seconds)} of training steps`],
    ["Held-out reward", peak ? `${formatted(first.reward)} → ${formatted(peak.reward)}` : "–",
      peak ? `${isKnown(floor?.reward) ? `constant reply ${formatted(floor.reward)}; ` : ""}best at step ${peak.step.toLocaleString("en")}` : ""],
    ["Held-out F1", peak ? `${formatted(first.f1)} → ${formatted(peak.f1)}` : "–", floor ? `constant reply ${formatted(floor.f1)}` : ""],
    ["Actors replaced", run.replaced.toLocaleString("en"),
      run.failed ? `${count(run.failed, "prompt")} failed` : ""],
  ];
  add(top, element("dl", { class: "facts" }, facts.map(([name, value, aside]) =>
    element("div", { class: "fact" }, element("dt", {}, name), element("dd", {}, value, " ", element("small", {}, aside))))));
}

// ---- held-out figures -------------------------------------------------------------------------------------------------------
const HELD_OUT = [
  ["reward", "Held-out reward", "as in training; dashed: the constant reply"],
  ["f1", "Held-out F1", "percent; dashed: the constant reply"],
  ["rougeL", "Held-out ROUGE-L", "percent; dashed: the constant reply"],
];

function heldOut(place) {
  if (!RUNS.some((run) => run.evaluations.length)) {
    add(place, soft("Nothing has been evaluated yet: data.valid names the examples, eval_every the steps between evaluations."));
    return;
  }
  for (const run of RUNS.filter((one) => one.evaluations.length < one.evaluated)) {
    add(place, soft(`${COMPARED ? `${run.name}: ` : ""}${run.evaluations.length} of ${count(run.evaluated, "evaluation")} are drawn; `,
      `${(run.evaluated - run.evaluations.length).toLocaleString("en")} are left out here and lie in evaluations.jsonl.`));
  }
  const columns = DATA.columns.filter((name) => RUNS.some((run) => run.evaluations.some((row) => isKnown(row[name])
    || further(row).some(([, own]) => isKnown(own[name])))));
  const tabled = RUNS.flatMap((run) => [...shown(run).flatMap((row) => [row, ...further(row).map(([, own]) => own)]), constantReply(run) ?? {}]);
  const written = columns.map((name) => [name, inColumn(tabled.map((row) => row[name]))]);
  const heads = [COMPARED ? element("th", { class: "text" }, "run") : null, element("th", { class: "text" }, "step"),
    columns.map((name) => element("th", {}, name))];
  add(place, [
    COMPARED ? legend() : null,
    element("div", { class: "charts few" }, HELD_OUT.map(([key, title, about]) => chart(title, about, RUNS.map((run) => ({
      steps: run.evaluations.map((row) => row.step),
      values: run.evaluations.map((row) => row[key]),
      floor: run.evaluations.map((row) => row.constant_reply && row.constant_reply[key]).find((value) => typeof value === "number"),
      border: run.stages.rl && run.stages.rl[0],
      dots: true,
    }))))),
    scrolling("Held-out figures", "scroll framed", table(heads, RUNS.map((run, i) => heldOutRows(run, i, written)))),
    RUNS.some((run) => shown(run).length < run.evaluated)
      ? soft("The table has the first evaluation, the best, and the last of each stage.") : null,
    tabled.some((row) => row.intervals) ? soft("Small: 95 % intervals by drawing the examples again.") : null,
    RUNS.some((run) => run.evaluations.some((row) => further(row).length))
      ? soft("Charts are of the first held-out set's greedy replies; avg@n is the mean of n draws a question, best@n the best of them.") : null,
    soft("The constant reply is one training answer given to every question, the best of those that were tried: ",
      "a policy that scores below it has not been shown to look at the question."),
  ]);
}
function heldOutRows(run, i, columns) {
  const [peak, floor] = [best(run), constantReply(run)];
  const label = (text) => [COMPARED ? element("td", { class: "run" }, named(i)) : null, element("td", { class: "text" }, text)];
  const note = (text) => element("tr", { class: "floor" }, element("td", { colspan: columns.length + 1 + COMPARED, class: "text" }, text));
  const figures = (row) => columns.map(([name, written]) => element("td", {}, written(row[name]), interval(row, name, written)));
  return [
    shown(run).map((row, at, rows) => [
      at && row.measure !== rows[at - 1].measure ? note("measured otherwise from here on, not to be compared with the lines above") : null,
      element("tr", { class: row === peak ? "best" : null },
        label(known([row.step.toLocaleString("en"), row.stage, row.set, row === peak ? "(best)" : null]).join(" ")), figures(row)),
      further(row).map(([name, own]) => element("tr", { class: "further" }, label(name), figures(own)))]),
    floor && element("tr", { class: "floor" }, label("constant reply"), figures(floor)),
    (run.evaluations.length ? further(run.evaluations.at(-1)) : []).filter(([, own]) => own.constant_reply)
      .map(([name, own]) => element("tr", { class: "floor" }, label(`constant reply ${name}`), figures(own.constant_reply))),
    floor && note(`“${floor.text}”`),
  ];
}
// Other held-out sets, and draws.
function further(row) {
  return row.further ?? [];
}
function interval(row, name, written) {
  const bounds = (row.intervals ?? {})[name];
  return bounds ? element("small", {}, `${written(bounds[0])} – ${written(bounds[1])}`) : null;
}
function shown(run) {
  return run.evaluations.filter((row) => run.summary_rows.includes(row.step));
}

// ---- curves of training -----------------------------------------------------------------------------------------------------
const VIEWS = { rl: "GRPO", supervised: "supervised steps", all: "all steps" };

function curves(place) {
  const trained = DATA.curves.filter((curve) => curve.section !== "Incidents");
  if (!trained.length) { add(place, soft("No step has been finished yet.")); return; }
  const stages = ["rl", "supervised"].filter((stage) => RUNS.some((run) => stepsIn(run, stage).length));
  const view = element("select", {}, [...stages, ...(stages.length > 1 ? ["all"] : [])].map((name) => element("option", { value: name }, VIEWS[name])));
  const charts = element("div");
  const draw = () => { charts.replaceChildren(); add(charts, chartsOf(view.value, trained)); };
  view.addEventListener("input", draw);
  const [, size] = bounds(RUNS.map((run) => run.curves.size));
  add(place, [soft(size > 1 ? `A point stands for up to ${size} steps: their mean, or the largest where the largest matters. ` : "",
    "Bold: mean over neighbours; faint: as measured. ", stages.length > 1 ? "Vertical dotted line: GRPO begins. " : "",
    "Beneath a chart stand its last figures: point at it, or focus it and use the arrow keys, to read others."),
  COMPARED ? legend() : null, stages.length > 1 ? element("label", { class: "view" }, "Steps shown", view) : null, charts]);
  draw();
}
// Places in a run's curves of the steps of a stage, or of all.
function stepsIn(run, view) {
  const [first, last] = view === "all" ? [-Infinity, Infinity] : run.stages[view] ?? [1, 0];
  return [...run.curves.steps.keys()].filter((i) => run.curves.steps[i] >= first && run.curves.steps[i] <= last);
}
// All charts have the same steps. Where runs begin a stage at different steps, they are counted from there.
function chartsOf(view, wanted) {
  const starts = new Set(RUNS.map((run) => (stepsIn(run, view).length && view !== "all" ? run.stages[view][0] : null)).filter(isKnown));
  const runs = RUNS.map((run) => {
    const [places, before] = [stepsIn(run, view), starts.size > 1 && run.stages[view] ? run.stages[view][0] - 1 : 0];
    return { run, places, steps: places.map((i) => run.curves.steps[i] - before), border: run.stages.rl && run.stages.rl[0] - before };
  });
  const domain = bounds(runs.flatMap((one) => one.steps));
  const shown = (curve) => runs.map(({ run, places, steps, border }) => {
    const values = places.map((i) => (run.curves.values[curve.key] ?? [])[i] ?? null);
    return { steps, border, exact: curve.exact, values, ...(curve.section === "Incidents" ? { dots: true, floor: 0 } : {}) };
  });
  const drawn = wanted.filter((curve) => shown(curve).some((one) => known(one.values).length));
  return [starts.size > 1 ? soft("Steps are counted from the beginning of the stage, which the runs began at different steps.") : null,
    [...new Set(drawn.map((curve) => curve.section))].map((name) => [name === "Incidents" ? null : element("h3", {}, name), element("div", { class: "charts" },
      drawn.filter((curve) => curve.section === name).map((curve) => chart(curve.title, curve.about, shown(curve), domain)))])];
}
