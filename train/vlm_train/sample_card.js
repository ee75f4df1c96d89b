// One sample of a run: its losses, its media, its words, where it came from.
const loss = (value) => (value === null ? "no loss" : typeof value === "number" ? value.toFixed(4) : String(value));

function nameOf(sample) {
  return `${sample.dataset}/${sample.sample_id}`;
}

function card(sample, place, largest, about = "") {
  const share = typeof sample.loss === "number" ? Math.max(0, sample.loss) / largest : 0;
  const label = `loss ${loss(sample.loss)}`;
  return el("article", { class: "card sample", "data-sample": nameOf(sample) },
    el("header", null,
      el("h3", null, el("span", { class: "soft" }, `${place + 1}. `), nameOf(sample)),
      el("div", { class: "loss" }, shareBar(share, null, label), el("b", null, label),
        sample.loss_share === null ? null : el("span", { class: "soft" }, `${percent(sample.loss_share, 0)} of the step`))),
    sample.problem ? el("p", { class: "error" }, sample.problem) : [media(sample), sample.turns.map(turn)],
    el("p", { class: "soft origin" }, about,
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
