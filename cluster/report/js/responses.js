// ---- one group: prompt, answers, passages, responses ------------------------------------------------------------------------
function question(text) {
  return text.startsWith("persona:") ? text.replace(/\s+(?=context:|[QA]: )/g, "\n") : text;
}
function weights([incarnation, step]) {
  return `weights of step ${step.toLocaleString("en")}${incarnation > 0 ? `, incarnation ${incarnation}` : ""}`;
}
// inside: whether a reward lies within the filter
function card(group, scale, inside) {
  const language = RUNS[group.run].settings["data.language"];
  const wanted = new Set(group.answers.flatMap((answer) => words(answer, language)));
  const mark = (text) => marked(text, wanted, language);
  const parts = [...new Set(group.responses.flatMap((one) => Object.keys(one.parts)))];
  const columns = [(one) => one.reward, ...parts.map((name) => (one) => one.parts[name])]
    .map((value) => [value, inColumn(group.responses.map(value))]);
  const rows = [...group.responses].sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity))
    .map((one) => responseRow(one, columns.map(([value, written]) => written(value(one))), mark, scale, inside(one.reward)));
  const heads = [element("th", { class: "text" }, "response"), ["reward", "advantage", ...parts, "tokens"].map((name) => element("th", {}, name))];
  const facts = [`step ${group.step.toLocaleString("en")}`, group.id, `epoch ${group.epoch}`, weights(group.version)];
  if (group.rewards) facts.push(`mean reward ${formatted(group.rewards[0])}, from ${formatted(group.rewards[1])} to ${formatted(group.rewards[2])}`);
  return element("article", {},
    element("header", {}, COMPARED ? named(group.run) : null, facts.map((fact) => element("span", {}, fact))),
    element("p", { class: "question" }, question(group.question)),
    group.answers.map((answer) => element("p", { class: "answer" }, answer)),
    group.passages.length ? passages(group, mark) : null,
    group.drawn > group.responses.length
      ? soft(`${group.responses.length} of ${group.drawn} responses: the best, the worst and others evenly between.`) : null,
    scrolling(`Responses to ${group.id} at step ${group.step}`, "scroll", table(heads, rows)));
}
function ofParts(one) {
  const known = ["lexical", "dense"].filter((name) => isKnown(one[name])).map((name) => `${name} ${formatted(one[name])}`);
  return known.length ? ` (${known.join(", ")})` : "";
}
function passages(group, mark) {
  const gold = group.passages.filter((one) => one.gold).length;
  const read = group.read > group.passages.length ? `${group.passages.length} of ${group.read} passages` : count(group.read, "passage");
  return element("details", {}, element("summary", {}, `${read}${gold ? `, ${gold} gold` : ""}`), group.passages.map((one) => {
    const [title, text] = RUNS[group.run].passages[one.text];
    return element("div", { class: "passage" }, element("span", { class: "soft" }, `${one.id}, score ${formatted(one.score)}${ofParts(one)} `),
      one.gold ? element("span", { class: "badge" }, "gold") : null,
      element("div", {}, title ? [element("strong", {}, title), " "] : null, mark(text)));
  }));
}
function responseRow(one, [reward, ...parts], mark, scale, inside) {
  const advantage = isKnown(one.advantage) ? Math.round(100 * one.advantage) / 100 || 0 : null;
  return element("tr", { class: inside ? null : "other" },
    element("td", { class: "text" }, mark(one.response), one.response ? null : element("i", { class: "soft" }, "(empty)"),
      one.finished ? null : [" ", element("span", { class: "badge cut" }, "cut")],
      inside ? null : element("span", { class: "unseen" }, " (outside the filter)")),
    element("td", { class: "reward" }, element("span", { class: "bar", style: `--share:${Math.max(0, one.reward ?? 0) / scale}` }), reward),
    element("td", { class: advantage > 0 ? "plus" : advantage < 0 ? "minus" : null },
      isKnown(advantage) ? `${advantage > 0 ? "+" : ""}${advantage.toFixed(2)}` : "–"),
    parts.map((part) => element("td", {}, part)),
    element("td", {}, formatted(one.tokens)));
}
