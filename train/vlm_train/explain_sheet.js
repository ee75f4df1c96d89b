// The samples of explained steps, highest loss of their own first.
const loss = (value) => (value === null ? "no loss" : typeof value === "number" ? value.toFixed(4) : String(value));

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

function nameOf(sample) {
  return `${sample.dataset}/${sample.sample_id}`;
}

function card(sample, place, largest) {
  const share = typeof sample.loss === "number" ? Math.max(0, sample.loss) / largest : 0;
  const label = `loss ${loss(sample.loss)}`;
  return el("article", { class: "card sample", "data-sample": nameOf(sample) },
    el("header", null,
      el("h3", null, el("span", { class: "soft" }, `${place + 1}. `), nameOf(sample)),
      el("div", { class: "loss" }, shareBar(share, null, label), el("b", null, label),
        sample.loss_share === null ? null : el("span", { class: "soft" }, `${percent(sample.loss_share, 0)} of the step`))),
    sample.problem ? el("p", { class: "error" }, sample.problem) : [media(sample), sample.turns.map(turn)],
    el("p", { class: "soft origin" },
      `${whole(sample.tokens)} tokens, ${whole(sample.supervised_tokens)} supervised · row ${sample.row}, place ${sample.position}`,
      sample.alternative ? ` · alternative ${sample.alternative}` : "", el("br"),
      el("span", { class: "mono" }, `${sample.source} → part ${sample.part}, shard ${sample.shard}, sample ${sample.index_in_shard}`)));
}

function media(sample) {
  if (!sample.media.length) return null;
  return el("div", { class: "media" }, sample.media.map((one) => {
    const length = one.duration === null ? "" : `, ${short(one.duration)} s`;
    return el("figure", null,
      one.url ? el("img", { src: one.url, alt: `${one.name} of the sample` }) : el("div", { class: "absent" }, "no picture"),
      el("figcaption", null, el("span", { class: "mono" }, one.name), ` ${one.width} × ${one.height}${length}, ${bytes(one.bytes)}`));
  }));
}

function turn([role, ...parts]) {
  const words = parts.map((part) => (Array.isArray(part) ? el("span", { class: "medium" }, part[0]) : part));
  return el("div", { class: `turn ${role === "assistant" ? "assistant" : ""}` },
    el("div", { class: "role" }, role), el("div", { class: "words", dir: "auto" }, words));
}

document.body.append(el("main", null,
  el("header", { class: "top" }, el("p", { class: "label" }, "Run"), el("h1", null, pageData.run)),
  pageData.steps.length > 1 ? el("nav", { "aria-label": "Steps" }, pageData.steps.map((step) => el("a", { href: `#step-${step.step}` }, `Step ${step.step}`))) : null,
  pageData.steps.length ? pageData.steps.map(stepSection) : el("p", null, "No step is over the running median by 6 MAD.")));
