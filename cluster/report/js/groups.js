// ---- groups, filtered and in pages ------------------------------------------------------------------------------------------
const PER_PAGE = 8;
const ORDERS = {
  step: ["as sampled", null],
  "-step": ["newest first", (a, b) => b.step - a.step],
  spread: ["widest spread first", (a, b) => spreadOf(b) - spreadOf(a)],
  top: ["highest reward first", (a, b) => highestOf(b) - highestOf(a)],
  low: ["lowest reward first", (a, b) => lowestOf(a) - lowestOf(b)],
};
const spreadOf = (group) => (group.rewards ? group.rewards[2] - group.rewards[1] : -1);
const highestOf = (group) => (group.rewards ? group.rewards[2] : -Number.MAX_VALUE);
const lowestOf = (group) => (group.rewards ? group.rewards[1] : Number.MAX_VALUE);

function groups(place) {
  for (const run of RUNS.filter((one) => one.unreadable_samples)) {
    add(place, soft(`${COMPARED ? `${run.name}: ` : ""}${run.unreadable_samples} of the sample files could not be read.`));
  }
  const everything = RUNS.flatMap((run, i) => run.groups.map((group) => ({ ...group, run: i })));
  if (!everything.length) {
    if (RUNS.every((run) => !run.sampled_steps)) add(place, soft(RUNS.some((run) => run.settings["learner.steps"] > 0 && run.settings["learner.loss"] !== "sft")
      ? "No responses have been sampled yet: GRPO comes after the supervised steps."
      : "No responses are sampled: the run is trained on gold answers alone."));
    return;
  }
  const [lowest, highest] = bounds(everything.flatMap((group) => (group.rewards ? group.rewards.slice(1) : [])));
  const scale = Math.max(Math.abs(lowest ?? 0), Math.abs(highest ?? 0)) || 1;
  const control = controls(everything, lowest, highest);
  const bar = filterBar(control);
  const pager = pages((group) => card(group, scale, rewardFilter(control)), () => place.scrollIntoView());
  const filter = () => pager.show(chosen(everything, control));
  bar.addEventListener("input", filter);
  bar.addEventListener("reset", () => setTimeout(filter));
  bar.addEventListener("submit", (event) => event.preventDefault());
  const steps = total(RUNS.map((run) => run.sampled_steps));
  const shownSteps = new Set(everything.map((group) => `${group.run} ${group.step}`)).size;
  const spread = `Groups of ${shownSteps} steps, spread over the ${steps.toLocaleString("en")} that were sampled; all are in samples/. `;
  add(place, [soft(shownSteps < steps ? spread : "", element("mark", {}, "Marked words"), " also stand in an answer. ",
    "The policy learns from the advantage: above zero it is pushed towards a response, below zero away from it."),
  bar, pager.bar, pager.list]);
  filter();
}
function controls(everything, lowest, highest) {
  const option = (value, text) => element("option", { value }, text);
  const select = (...options) => element("select", {}, options);
  const steps = [...new Set(everything.map((group) => group.step))].sort((a, b) => a - b);
  return {
    run: select(option("", "all"), RUNS.map((run, i) => option(i, run.name))),
    step: select(option("", "all"), steps.map((step) => option(step, step))),
    low: element("input", { type: "number", step: "any", placeholder: formatted(lowest) }),
    high: element("input", { type: "number", step: "any", placeholder: formatted(highest) }),
    text: element("input", { type: "search", placeholder: "in prompt, answer, passage or response" }),
    order: select(Object.entries(ORDERS).map(([value, [text]]) => option(value, text))),
  };
}
function filterBar(control) {
  const labels = { run: "Run", step: "Step", low: "Reward from", high: "Reward to", text: "Text", order: "Order" };
  for (const [name, field] of Object.entries(control)) field.setAttribute("aria-label", labels[name]);
  return element("form", { class: "controls", "aria-label": "Filter the groups" },
    Object.entries(control).filter(([name]) => COMPARED || name !== "run")
      .map(([name, field]) => element("label", { class: name === "text" ? "grow" : null }, labels[name], field)),
    element("button", { type: "reset" }, "Reset"));
}
function rewardFilter({ low, high }) {
  const [from, to] = [low, high].map((field) => (field.value === "" ? null : Number(field.value)));
  return (reward) => (from === null || (isKnown(reward) && reward >= from)) && (to === null || (isKnown(reward) && reward <= to));
}
function chosen(everything, control) {
  const inside = rewardFilter(control);
  const text = control.text.value.trim().toLowerCase();
  const found = everything.filter((group) => (control.run.value === "" || group.run === Number(control.run.value)) &&
    (control.step.value === "" || group.step === Number(control.step.value)) &&
    group.responses.some((one) => inside(one.reward)) && (!text || haystack(group).includes(text)));
  const order = ORDERS[control.order.value][1];
  return order ? found.sort(order) : found;
}
function haystack(group) {
  const passages = group.passages.map((one) => RUNS[group.run].passages[one.text]);
  return [group.question, group.answers, group.responses.map((one) => one.response), passages].flat(Infinity).join("\n").toLowerCase();
}
// At an end a button stays where the focus is, and says that it leads nowhere.
function pages(draw, turned) {
  const list = element("div");
  const told = element("span", { class: "soft", role: "status" });
  const button = (by, name) => element("button", { type: "button", onclick: () => turn(by) }, name);
  const [previous, next] = [button(-1, "Previous"), button(1, "Next")];
  let [page, found] = [0, []];
  const last = () => Math.max(0, Math.ceil(found.length / PER_PAGE) - 1);
  function turn(by) {
    if (page + by < 0 || page + by > last()) return;
    page += by;
    update();
    turned();
  }
  function update() {
    told.textContent = `${count(found.length, "group")}, page ${page + 1} of ${last() + 1}`;
    previous.setAttribute("aria-disabled", page === 0);
    next.setAttribute("aria-disabled", page === last());
    list.replaceChildren();
    if (!found.length) add(list, soft("No group matches."));
    add(list, found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(draw));
  }
  function show(groups) { [page, found] = [0, groups]; update(); }
  return { show, list, bar: element("div", { class: "pager" }, previous, next, told) };
}
