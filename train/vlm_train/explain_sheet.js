// The samples of explained steps, highest loss of their own first.
function stepSection(step) {
  const finite = step.samples.map((one) => one.loss).filter((value) => typeof value === "number");
  const largest = Math.max(1e-9, ...finite);
  const about = `Epoch ${step.epoch}, its step ${step.epoch_step}. Loss ${loss(step.loss)}, gradient norm ${loss(step.grad_norm)}; ` +
    `${plural(step.samples.length, "sample")}, the highest loss of its own first.`;
  const cards = step.samples.filter((one) => one.turns || one.problem);
  const lines = step.samples.slice(cards.length);
  return section(`step-${step.step}`, `Step ${step.step}`, about,
    cards.map((sample, place) => card(sample, place, largest)),
    lines.length ? el("div", { class: "card" }, table(COLUMNS, lines)) : null);
}

const COLUMNS = [
  { title: "Sample", kind: "text", sort: nameOf, cell: nameOf },
  { title: "Loss", kind: "number", sort: (one) => one.loss, cell: (one) => loss(one.loss) },
  { title: "Tokens", kind: "number", sort: (one) => one.tokens, cell: (one) => whole(one.tokens) },
  { title: "Source", kind: "text", sort: (one) => one.source, cell: (one) => el("span", { class: "mono" }, one.source) },
];

document.body.append(el("main", null,
  el("header", { class: "top" }, el("p", { class: "label" }, "Run"), el("h1", null, pageData.run)),
  pageData.steps.length > 1 ? el("nav", { "aria-label": "Steps" }, pageData.steps.map((step) => el("a", { href: `#step-${step.step}` }, `Step ${step.step}`))) : null,
  pageData.steps.length ? pageData.steps.map(stepSection) : el("p", null, "No step is over the running median by 6 MAD.")));
