"use strict";
// Text reaches the page through textContent alone: what a model wrote is never markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const COMPARED = RUNS.length > 1;
const ANALYSED = new Map();

function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "rect", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const colour = (run) => `var(--c${run % 8})`;
const section = (id) => document.getElementById(id);
const known = (values) => values.filter((value) => value !== null && value !== undefined);
const mean = (values) => known(values).reduce((sum, value) => sum + value, 0) / known(values).length;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function figure_(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(1);
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(size >= 100 ? 4 : 3));
}
function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
function names(extra = () => "") {
  return h("ul", { class: "legend" }, RUNS.map((run, i) =>
    h("li", {}, h("span", { class: "swatch", style: `background:${colour(i)}` }), run.name, extra(run))));
}

// ---- header -------------------------------------------------------------------------------------------------------------
function trained(run) { return run.evaluations.filter((row) => row.step > 0 && row.reward !== null); }
function best(run) { return trained(run).reduce((a, b) => (a === null || b.reward > a.reward ? b : a), null); }

function header() {
  const top = section("top");
  document.title = `${RUNS.map((run) => run.name).join(", ")} – LAPDOG-Ray`;
  top.append(h("h1", {}, COMPARED ? `${RUNS.length} runs compared` : RUNS[0].name));
  if (COMPARED) { top.append(names((run) => `  ${count(run.steps, "step")}, ${duration(run.seconds)}`)); return; }
  const run = RUNS[0];
  const settings = run.settings;
  const model = settings["policy.path"] || "small T5, from scratch";
  top.append(h("p", { class: "soft" }, `${model}; ${settings["data.train"] || "demo"}; `, h("code", {}, run.path)));
  const first = run.evaluations[0];
  const peak = best(run);
  const floor = run.evaluations.map((row) => row.constant_reply).find(Boolean);
  const facts = [
    ["Steps", count(run.steps, "step").split(" ")[0], duration(run.seconds)],
    ["Held-out reward", peak ? figure_(peak.reward) : "–", first && peak ? `from ${figure_(first.reward)}, at step ${peak.step}` : ""],
    ["Held-out F1", peak ? figure_(peak.f1) : "–", floor ? `constant reply ${figure_(floor.f1)}` : ""],
    ["Actors replaced", String(run.mishaps.restarts.reduce((sum, [, times]) => sum + times, 0)),
      run.failed_prompts.length ? count(run.failed_prompts.length, "prompt") + " failed" : ""],
  ];
  top.append(h("dl", { class: "facts" }, facts.map(([name, value, aside]) =>
    h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value, " ", h("small", {}, aside))))));
}

// ---- held-out table -----------------------------------------------------------------------------------------------------
function heldOut() {
  const place = section("held-out");
  if (!RUNS.some((run) => run.evaluations.length)) {
    place.append(h("p", { class: "soft" }, "Nothing was evaluated yet: data.valid names the examples, eval_every the steps."));
    return;
  }
  const columns = DATA.columns.filter((name) => RUNS.some((run) => run.evaluations.some((row) => row[name] !== null)));
  const charts = [["reward", "Held-out reward", "greedy replies, in the training reward's units"],
    ["f1", "Held-out F1", "percent; dashed: the constant reply"], ["rougeL", "Held-out ROUGE-L", "percent; dashed: the constant reply"]];
  place.append(COMPARED ? names() : "", h("div", { class: "charts few" }, charts.map(([key, title, about]) => chart(title, about,
    RUNS.map((run) => ({
      steps: run.evaluations.map((row) => row.step),
      values: run.evaluations.map((row) => row[key]),
      floor: run.evaluations.map((row) => row.constant_reply && row.constant_reply[key]).find((x) => typeof x === "number"),
      dots: true,
    }))))));
  const rows = RUNS.flatMap((run, i) => {
    const peak = best(run);
    const floor = run.evaluations.map((row) => row.constant_reply).find(Boolean);
    const label = (text) => h("td", {}, COMPARED ? h("span", { class: "swatch", style: `background:${colour(i)}` }) : null, text);
    return [
      ...shown(run).map((row) => h("tr", { class: row === peak ? "best" : null },
        label(`${row.step} ${row.stage}${row === peak ? " (best)" : ""}`), columns.map((name) => h("td", {}, figure_(row[name]))))),
      floor ? h("tr", { class: "floor" }, label("constant reply"), columns.map((name) => h("td", {}, figure_(floor[name])))) : null,
      floor ? h("tr", { class: "floor" }, h("td", { colspan: columns.length + 1 }, `“${floor.text}”`)) : null,
    ];
  });
  place.append(h("div", { class: "scroll framed", tabindex: "0", role: "region", "aria-label": "Held-out figures" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "step"), columns.map((name) => h("th", {}, name)))), h("tbody", {}, rows))),
  h("p", { class: "soft" }, "The constant reply is the one training answer that scores best when it is said to everything: ",
    "a policy below it has learnt nothing."));
}
function shown(run) {
  if (run.evaluations.length <= 12) return run.evaluations;
  const ends = Object.values(run.stages).map(([, last]) => last);
  return run.evaluations.filter((row, i) => i === 0 || i === run.evaluations.length - 1 || row === best(run) || ends.includes(row.step));
}

// ---- curves -------------------------------------------------------------------------------------------------------------
function curves() {
  const place = section("curves");
  if (!DATA.curves.length) { place.append(h("p", { class: "soft" }, "No step was finished yet.")); return; }
  const size = Math.max(...RUNS.map((run) => run.curves.size));
  const smoothed = "Bold: running mean; faint: as it was.";
  place.append(h("p", { class: "soft" }, size > 1 ? `Each point is the mean over up to ${size} steps. ` : "", smoothed,
    " Dotted line: GRPO begins. Point at a chart, or focus it and use the arrow keys, to read its figures."), COMPARED ? names() : "");
  for (const name of [...new Set(DATA.curves.map((curve) => curve.section))]) {
    place.append(h("h3", {}, name), h("div", { class: "charts" }, DATA.curves.filter((curve) => curve.section === name).map((curve) =>
      chart(curve.title, curve.about, RUNS.map((run) => ({ steps: run.curves.steps, values: run.curves.values[curve.key] || [], exact: curve.exact }))))));
  }
}
function smooth(values) {
  const reach = Math.floor(known(values).length / 40);
  if (reach < 1) return values;
  return values.map((value, i) => (value === null ? null : mean(values.slice(Math.max(0, i - reach), i + reach + 1))));
}
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const marks = [];
  for (let mark = Math.ceil(low / step - 1e-9) * step; mark <= high + step * 1e-6; mark += step) marks.push(Math.abs(mark) < step * 1e-6 ? 0 : +mark.toPrecision(12));
  return marks;
}
// series: one for each run, {steps, values, floor, dots, exact}
function chart(title, about, series) {
  const [width, height, left, right, top, bottom] = [360, 176, 44, 8, 8, 22];
  const all = series.flatMap((one) => [...known(one.values), ...known([one.floor])]);
  const readout = h("output", {});
  const caption = h("figcaption", {}, h("b", {}, title), h("small", {}, about));
  if (!all.length) return h("figure", {}, caption, h("p", { class: "soft" }, "no figures"));
  const used = series.flatMap((one) => one.steps.filter((_, i) => one.values[i] !== null && one.values[i] !== undefined));
  let [low, high] = [Math.min(...all), Math.max(...all)];
  const pad = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  [low, high] = [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
  let [first, last] = [Math.min(...used), Math.max(...used)];
  if (first === last) [first, last] = [first - 1, last + 1];
  const x = (step) => left + ((step - first) / (last - first)) * (width - left - right);
  const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);
  const path = (steps, values) => values.map((value, i) => (value === null || value === undefined ? "" :
    `${i && known([values[i - 1]]).length ? "L" : "M"}${x(steps[i]).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
  const ends = known(series.map((one) => known(one.values).slice(-1)[0]));
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0",
    "aria-label": `${title}, ${about}: ${figure_(known(series[0].values)[0])} to ${ends.map(figure_).join(", ")}` });
  for (const mark of ticks(low, high, 4)) {
    svg.append(h("line", { class: "grid", x1: left, x2: width - right, y1: y(mark), y2: y(mark) }),
      h("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, figure_(mark)));
  }
  for (const mark of ticks(first, last, 5).filter(Number.isInteger)) {
    svg.append(h("text", { x: x(mark), y: height - 6, "text-anchor": "middle" }, mark.toLocaleString("en")));
  }
  for (const border of new Set(RUNS.map((run) => run.stages.grpo && run.stages.grpo[0]))) {
    if (border > first && border < last) svg.append(h("line", { class: "stage", x1: x(border), x2: x(border), y1: top, y2: height - bottom }));
  }
  series.forEach((one, i) => {
    const soft = one.dots || one.exact ? one.values : smooth(one.values);
    if (soft !== one.values) svg.append(h("path", { class: "raw", d: path(one.steps, one.values), stroke: colour(i) }));
    svg.append(h("path", { class: "line", d: path(one.steps, soft), stroke: colour(i) }));
    if (one.floor !== undefined) svg.append(h("line", { class: "floor", x1: left, x2: width - right, y1: y(one.floor), y2: y(one.floor), stroke: colour(i) }));
    const alone = known(one.values).length === 1;
    if (one.dots || alone) one.values.forEach((value, n) => value === null || value === undefined ? null :
      svg.append(h("circle", { cx: x(one.steps[n]), cy: y(value), r: 3, fill: colour(i) })));
  });
  const cursor = h("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  svg.append(cursor);
  let at = null;
  const marks = [...new Set(used)].sort((a, b) => a - b);
  function read(index) {
    at = Math.max(0, Math.min(marks.length - 1, index));
    const step = marks[at];
    cursor.setAttribute("x1", x(step)); cursor.setAttribute("x2", x(step)); cursor.setAttribute("visibility", "visible");
    const values = series.map((one, i) => [i, one.values[one.steps.indexOf(step)]]).filter(([, value]) => value !== null && value !== undefined);
    readout.replaceChildren(`step ${step.toLocaleString("en")}: `, ...values.map(([i, value]) =>
      h("span", {}, COMPARED ? h("span", { class: "swatch", style: `background:${colour(i)}` }) : "", `${figure_(value)}  `)));
  }
  function leave() { cursor.setAttribute("visibility", "hidden"); readout.textContent = ""; at = null; }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const step = first + (((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * (last - first);
    read(marks.reduce((near, mark, i) => (Math.abs(mark - step) < Math.abs(marks[near] - step) ? i : near), 0));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (move !== undefined) { event.preventDefault(); read(at === null ? marks.length - 1 : at + move); }
    if (event.key === "Home" || event.key === "End") { event.preventDefault(); read(event.key === "Home" ? 0 : marks.length - 1); }
  });
  return h("figure", {}, caption, svg, readout);
}

// ---- groups -------------------------------------------------------------------------------------------------------------
const PER_PAGE = 8;
const words = (text) => text.toLowerCase().normalize("NFKC").split(/[^\p{L}\p{N}]+/u).filter((w) => w && !["a", "an", "the"].includes(w));

function marked(text, wanted) {
  return text.split(/([\p{L}\p{N}]+)/u).map((part) => (words(part).some((word) => wanted.has(word)) ? h("mark", {}, part) : part));
}
function question(text) {
  return text.startsWith("persona:") ? text.replace(/\s+(?=context:|[QA]: )/g, "\n") : text;
}
function rewardRange(group) {
  const rewards = known(group.responses.map((one) => one.reward));
  return rewards.length ? [Math.min(...rewards), Math.max(...rewards)] : [null, null];
}
function groups() {
  const place = section("groups");
  const everything = RUNS.flatMap((run, i) => run.groups.map((group) => ({ ...group, run: i })));
  if (!everything.length) {
    place.append(h("p", { class: "soft" }, "No responses were drawn yet: GRPO comes after the supervised steps."));
    return;
  }
  const all = everything.flatMap((group) => known(group.responses.map((one) => one.reward)));
  const [lowest, highest] = [Math.min(...all), Math.max(...all)];
  const scale = Math.max(Math.abs(lowest), Math.abs(highest)) || 1;
  const option = (value, text) => h("option", { value }, text);
  const control = {
    run: h("select", {}, option("", "all"), RUNS.map((run, i) => option(i, run.name))),
    step: h("select", {}, option("", "all"), [...new Set(everything.map((group) => group.step))].sort((a, b) => a - b).map((s) => option(s, s))),
    low: h("input", { type: "number", step: "any", placeholder: figure_(lowest) }),
    high: h("input", { type: "number", step: "any", placeholder: figure_(highest) }),
    text: h("input", { type: "search", placeholder: "in prompt, answer, passage or response" }),
    order: h("select", {}, option("step", "as sampled"), option("-step", "newest first"), option("spread", "widest spread first"),
      option("top", "highest reward first"), option("low", "lowest reward first")),
  };
  const labels = { run: "Run", step: "Step", low: "Reward from", high: "Reward to", text: "Text", order: "Order" };
  for (const [name, field] of Object.entries(control)) field.setAttribute("aria-label", labels[name]);
  const bar = h("form", { class: "controls", "aria-label": "Filter the groups" }, Object.entries(control).filter(([name]) => COMPARED || name !== "run")
    .map(([name, field]) => h("label", { class: name === "text" ? "grow" : null }, labels[name], field)), h("button", { type: "reset" }, "Reset"));
  const list = h("div", { "aria-live": "polite" });
  const told = h("span", { class: "soft", role: "status" });
  const buttons = [h("button", { type: "button", onclick: () => turn(-1) }, "Previous"), h("button", { type: "button", onclick: () => turn(1) }, "Next")];
  let [page, found] = [0, []];
  const haystack = (group) => {
    if (!ANALYSED.has(group)) {
      const texts = [group.question, ...group.answers, ...group.responses.map((one) => one.response),
        ...group.passages.map((one) => RUNS[group.run].passages[one.text])];
      ANALYSED.set(group, texts.join("\n").toLowerCase());
    }
    return ANALYSED.get(group);
  };
  const number = (field) => (field.value === "" ? null : Number(field.value));
  const inside = (reward) => (number(control.low) === null || (reward !== null && reward >= number(control.low))) &&
    (number(control.high) === null || (reward !== null && reward <= number(control.high)));
  function filter() {
    const text = control.text.value.trim().toLowerCase();
    found = everything.filter((group) => (control.run.value === "" || group.run === Number(control.run.value)) &&
      (control.step.value === "" || group.step === Number(control.step.value)) &&
      group.responses.some((one) => inside(one.reward)) && (!text || haystack(group).includes(text)));
    const spread = (group) => { const [a, b] = rewardRange(group); return a === null ? -1 : b - a; };
    const order = { "-step": (a, b) => b.step - a.step, spread: (a, b) => spread(b) - spread(a),
      top: (a, b) => rewardRange(b)[1] - rewardRange(a)[1], low: (a, b) => rewardRange(a)[0] - rewardRange(b)[0] }[control.order.value];
    if (order) found.sort(order);
    page = 0;
    draw();
  }
  function turn(by) { page += by; draw(); place.scrollIntoView(); }
  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    told.textContent = `${count(found.length, "group")}, page ${page + 1} of ${pages}`;
    buttons[0].disabled = page === 0;
    buttons[1].disabled = page >= pages - 1;
    list.replaceChildren(...found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map((group) => card(group, scale, inside)));
  }
  bar.addEventListener("input", filter);
  bar.addEventListener("reset", () => setTimeout(filter));
  bar.addEventListener("submit", (event) => event.preventDefault());
  const steps = RUNS.reduce((sum, run) => sum + run.sampled_steps, 0);
  const shownSteps = new Set(everything.map((group) => `${group.run} ${group.step}`)).size;
  place.append(h("p", { class: "soft" }, shownSteps < steps ? `Groups of ${shownSteps} steps, spread over the ${steps} that were sampled; all lie in samples/. ` : "",
    h("mark", {}, "Marked words"), " stand in an answer, too. The advantage is what the policy is pushed by: above zero towards a response."),
  bar, h("div", { class: "pager" }, buttons, told), list);
  filter();
}
function card(group, scale, inside) {
  const run = RUNS[group.run];
  const wanted = new Set(group.answers.flatMap(words));
  const rewards = known(group.responses.map((one) => one.reward));
  const gold = group.passages.filter((one) => one.gold).length;
  const parts = [...new Set(group.responses.flatMap((one) => Object.keys(one.parts)))];
  const rows = [...group.responses].sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity)).map((one) => h("tr", { class: inside(one.reward) ? null : "other" },
    h("td", { class: "text" }, marked(one.response, wanted), one.finished ? null : [" ", h("span", { class: "badge cut" }, "cut")], one.response ? null : h("i", { class: "soft" }, "(empty)")),
    h("td", {}, h("span", { class: "bar", style: `width:${(Math.max(0, one.reward ?? 0) / scale) * 3.5}em` }), figure_(one.reward)),
    parts.map((name) => h("td", {}, figure_(one.parts[name]))),
    h("td", { class: one.advantage > 0 ? "plus" : one.advantage < 0 ? "minus" : null }, `${one.advantage > 0 ? "+" : ""}${one.advantage.toFixed(2)}`),
    h("td", {}, String(one.tokens))));
  return h("article", {},
    h("header", {}, COMPARED ? h("span", {}, h("span", { class: "swatch", style: `background:${colour(group.run)}` }), run.name) : null,
      h("span", {}, `step ${group.step}`), h("span", {}, group.id), h("span", {}, `epoch ${group.epoch}`), h("span", {}, `weights ${group.version.join(".")}`),
      rewards.length ? h("span", {}, `reward ${figure_(mean(rewards))}, ${figure_(Math.min(...rewards))} to ${figure_(Math.max(...rewards))}`) : null),
    h("p", { class: "question" }, question(group.question)),
    group.answers.map((answer) => h("p", { class: "answer" }, answer)),
    group.passages.length ? h("details", {}, h("summary", {}, `${count(group.passages.length, "passage")}${gold ? `, ${gold} gold` : ""}`),
      group.passages.map((one) => h("div", { class: "passage" }, h("span", { class: "soft" }, `${one.id}, score ${figure_(one.score)} `),
        one.gold ? h("span", { class: "badge" }, "gold") : null, h("div", {}, marked(run.passages[one.text], wanted))))) : null,
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Responses to ${group.id} at step ${group.step}` }, h("table", {}, h("thead", {}, h("tr", {},
      h("th", { class: "text" }, "response"), h("th", {}, "reward"), parts.map((name) => h("th", {}, name)), h("th", {}, "advantage"), h("th", {}, "tokens"))),
    h("tbody", {}, rows))));
}

// ---- time line ----------------------------------------------------------------------------------------------------------
function timeLine() {
  const place = section("time-line");
  for (const [i, run] of RUNS.entries()) {
    const lanes = Object.entries(DATA.mishaps).map(([name, about]) => [about, run.mishaps[name]]);
    lanes.push(["learner or driver began anew", run.incarnations.slice(1).map(([step, incarnation]) => [step, `incarnation ${incarnation}`])]);
    lanes.push(["prompts that failed", run.failed_prompts.map((row) => [row.step, row.id])]);
    const busy = lanes.filter(([, marks]) => marks.length);
    place.append(COMPARED ? h("h3", {}, h("span", { class: "swatch", style: `background:${colour(i)}` }), run.name) : "");
    if (!busy.length && !run.events.length) { place.append(h("p", { class: "soft" }, "Nothing: no actor was replaced, no prompt failed.")); continue; }
    if (busy.length) place.append(lanesFigure(run, busy));
    if (run.events.length) place.append(h("details", { open: run.events.length <= 12 }, h("summary", {}, count(run.events.length, "event")),
      h("div", { class: "events", tabindex: "0", role: "region", "aria-label": "Events" }, h("table", {},
        h("thead", {}, h("tr", {}, h("th", {}, "time"), h("th", {}, "step"), h("th", { class: "text" }, "what"))),
        h("tbody", {}, run.events.map((row) => h("tr", {}, h("td", {}, new Date(row.time * 1000).toISOString().slice(0, 19).replace("T", " ")),
          h("td", {}, String(row.step)), h("td", { class: "text" }, row.text))))))));
  }
}
function lanesFigure(run, lanes) {
  const [width, left, row] = [900, 190, 26];
  const height = lanes.length * row + 26;
  const x = (step) => left + (step / Math.max(1, run.steps)) * (width - left - 10);
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label":
    lanes.map(([about, marks]) => `${about} at steps ${marks.map(([step]) => step).join(", ")}`).join("; ") });
  lanes.forEach(([about, marks], lane) => {
    const y = lane * row + row / 2;
    svg.append(h("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, about), h("line", { class: "grid", x1: left, x2: width - 10, y1: y, y2: y }));
    for (const [step, what] of marks) {
      svg.append(h("circle", { cx: x(step), cy: y, r: typeof what === "number" ? Math.min(9, 3 + what) : 4, fill: "var(--bad)", "fill-opacity": 0.7 },
        h("title", {}, `step ${step}: ${what}`)));
    }
  });
  for (const mark of ticks(0, Math.max(1, run.steps), 8).filter(Number.isInteger)) {
    svg.append(h("text", { x: x(mark), y: height - 4, "text-anchor": "middle" }, mark.toLocaleString("en")));
  }
  return h("figure", { class: "wide" }, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Time line" },
    h("div", { style: "min-width:620px" }, svg)));
}

// ---- settings -----------------------------------------------------------------------------------------------------------
function settings() {
  const place = section("settings");
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  const text = (value) => (value === null || value === undefined ? "none" : typeof value === "string" ? value : JSON.stringify(value));
  const all = Object.keys(DATA.defaults);
  const differ = all.filter((name) => RUNS.some((run) => !same(run.settings[name], (COMPARED ? RUNS[0].settings : DATA.defaults)[name])));
  const heads = COMPARED ? RUNS.map((run) => run.name) : ["this run", "default"];
  const table = (some) => h("div", { class: "scroll framed", tabindex: "0", role: "region", "aria-label": "Settings" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "setting"), heads.map((name) => h("th", { class: "text" }, name)))),
    h("tbody", {}, some.map((name) => h("tr", {}, h("td", {}, h("code", {}, name)),
      (COMPARED ? RUNS.map((run) => run.settings[name]) : [RUNS[0].settings[name], DATA.defaults[name]]).map((value) => h("td", { class: "text" }, text(value))))))));
  place.append(h("p", { class: "soft" }, COMPARED ? "Where the runs differ:" : "Where the run differs from the defaults:"), table(differ),
    h("details", {}, h("summary", {}, `all ${all.length} settings`), table(all)),
    h("footer", {}, "Written by LAPDOG-Ray. One file, nothing is loaded from elsewhere."));
}

for (const draw of [header, heldOut, curves, groups, timeLine, settings]) draw();
