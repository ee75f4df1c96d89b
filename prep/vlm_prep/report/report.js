// The page of a mix: header, shares, distributions, findings, samples.
const { mix, datasets, doors, distributions, findings } = pageData;
const ROW_HEIGHT = 60;
const FAMILIES = { qwen3_vl: "Qwen3-VL", nemotron_vl: "Nemotron-VL" };
const SEVERITIES = { E: ["error", "error"], W: ["warning", "warning"], I: ["info", "note"] };
const STATES = { train: ["good", "train"], eval: ["info", "eval"], left_out: ["warning", "left out"], rejected: ["error", "rejected"] };

const samples = pageData.samples.map((row) => Object.fromEntries(pageData.sample_columns.map((name, place) => [name, row[place]])));
const placeOf = new Map(samples.map((sample, place) => [keyOf(sample.dataset, sample.id), place]));

function keyOf(dataset, id) {
  return JSON.stringify([dataset, id]);
}

function total(name) {
  return datasets.reduce((sum, one) => sum + one[name], 0);
}

function header() {
  const weights = { samples: "shares of samples", tokens: "shares of tokens", repeats: "repeats" }[mix.weight_unit] ?? mix.weight_unit;
  const about = [
    FAMILIES[mix.family] ?? mix.family, `weights are ${weights}`, `rows up to ${whole(mix.model_max_length)} tokens`,
    `longer samples: ${mix.length_policy}`, `seed ${mix.seed}`,
  ];
  const tokens = total("tokens");
  const found = (findings ?? []).filter((one) => one.status === "found");
  const counts = ["E", "W", "I"].map((sign) => [found.filter((one) => one.severity === sign).length, SEVERITIES[sign][1]]);
  const summary = counts.filter(([count]) => count).map(([count, name]) => plural(count, name)).join(", ");
  return el("header", { class: "top" },
    el("p", { class: "label" }, "Mix"),
    el("h1", null, mix.name),
    el("p", { class: "soft" }, about.join(" · ")),
    el("p", { class: "soft mono" }, `version ${mix.fingerprint}`),
    mix.notes.length ? el("details", { class: "quiet" }, el("summary", null, `${plural(mix.notes.length, "note")} of the build`), el("ul", null, mix.notes.map((text) => el("li", null, text)))) : null,
    el("div", { class: "tiles" },
      tile(whole(mix.epoch_samples), "samples an epoch", "draws of one epoch over all datasets"),
      tile(short(total("epoch_tokens")), "tokens an epoch", "expected: mean tokens of each dataset times its draws"),
      tile(whole(total("num_selected")), `selected of ${whole(total("num_selected") + total("num_eval") + total("num_left_out") + total("num_rejected"))}`, "samples to train on, of all samples of the sources"),
      tile(percent(tokens ? total("supervised_tokens") / tokens : 0, 1), "of tokens supervised", "tokens that have a label"),
      tile(short(total("num_images")), `images, ${short(total("num_videos"))} videos`, "of the selected samples"),
      tile(findings === null ? "–" : whole(found.length), findings === null ? "not audited" : summary || "findings", "checks of the audit that found something")));
}

function navigation(links) {
  return el("nav", { "aria-label": "Sections" }, links.map(([id, title]) => el("a", { href: `#${id}` }, title)));
}

function shares() {
  const byTokens = mix.weight_unit === "tokens";
  const mark = (asked) => (one) => (asked ? one.asked : null);
  const largest = Math.max(0.01, ...datasets.flatMap((one) => [one.asked, one.share_of_num_draws, one.share_of_epoch_tokens]));
  const share = (title, name, asked) => ({
    title, kind: "wide", sort: (one) => one[name],
    cell: (one) => {
      const wanted = mark(asked)(one);
      const label = `${one.name}: ${percent(one[name])}${wanted === null ? "" : `, asked ${percent(wanted)}`}`;
      return shareBar(one[name], wanted, label, largest);
    },
  });
  const text = (title, name, show = whole) => ({ title, kind: "number", sort: (one) => one[name], cell: (one) => show(one[name]) });
  const columns = [
    { title: "Dataset", kind: "text", sort: (one) => one.name, cell: (one) => one.name },
    share("Samples", "share_of_num_draws", !byTokens),
    text("realised", "share_of_num_draws", percent),
    ...(byTokens ? [] : [text("asked", "asked", percent)]),
    share("Tokens", "share_of_epoch_tokens", byTokens),
    text("realised", "share_of_epoch_tokens", percent),
    ...(byTokens ? [text("asked", "asked", percent)] : []),
    text("Draws", "num_draws"),
    { title: "Selected", kind: "number", sort: (one) => one.num_selected, cell: (one) => whole(one.num_selected) },
    { title: "Repeats", kind: "number", sort: repeats, cell: (one) => `${repeats(one).toFixed(2)} ×` },
    text("Tokens each", "mean_tokens"),
  ];
  const key = el("p", { class: "about" },
    el("span", { class: "key" }), "realised in one epoch", el("span", { class: "key mark" }), "asked by the weights", el("span", { class: "soft" }, ` · bars end at ${percent(largest, 1)}`));
  return section("mix", "What one epoch is made of",
    "Shares of samples and of tokens in one epoch. Repeats: how often each selected sample is drawn, on average.",
    key, el("div", { class: "card" }, table(columns, datasets)));
}

function repeats(one) {
  return one.num_selected ? one.num_draws / one.num_selected : 0;
}

function doorsTaken() {
  const lost = doors.length > 0;
  const columns = [
    { title: "Dataset", kind: "text", sort: (one) => one.dataset, cell: (one) => one.dataset },
    { title: "Stage", kind: "text", sort: (one) => one.stage, cell: (one) => badge(one.stage) },
    { title: "Reason", kind: "text", sort: (one) => one.reason, cell: (one) => [el("span", { class: "mono" }, one.reason), el("span", { class: "soft" }, ` ${one.meaning}`)] },
    { title: "Samples", kind: "number", sort: (one) => one.num_samples, cell: (one) => whole(one.num_samples) },
    { title: "Of the dataset", kind: "number", sort: ofDataset, cell: (one) => percent(ofDataset(one)) },
    { title: "", kind: "number", cell: (one) => el("button", { class: "plain", type: "button", onclick: () => browser.show({ dataset: one.dataset, state: one.stage, reason: one.reason }) }, "Look") },
  ];
  return section("doors", "Samples that are not used",
    lost ? "Rejected: could not be converted. Left out: converted, and not selected for this mix." : null,
    el("div", { class: "card" }, lost ? table(columns, doors) : el("p", null, "Every sample of the sources is used.")));
}

function ofDataset(door) {
  const one = datasets.find((each) => each.name === door.dataset);
  return one ? door.num_samples / (one.num_selected + one.num_eval + one.num_left_out + one.num_rejected) : 0;
}

function badge(state) {
  const [kind, name] = STATES[state];
  return el("span", { class: `badge ${kind}` }, name);
}

function spreads() {
  const place = el("div", { class: "card" });
  const choose = (one) => place.replaceChildren(spread(one));
  const choices = distributions.map((one, number) => el("label", null,
    el("input", { type: "radio", name: "measure", checked: number === 0, onchange: () => choose(one) }), one.title));
  if (distributions.length) choose(distributions[0]);
  return section("distributions", "Distributions", "Over the samples that the mix trains on, each counted once. Every row has the same bins; its columns are scaled to its own largest.",
    el("div", { class: "choices", role: "radiogroup", "aria-label": "Measure" }, choices), place);
}

function spread(one) {
  const { edges, unit, measure } = one;
  const range = (bin) => (measure === "turns" ? `${edges[bin]}` : `${short(edges[bin])} to ${short(edges[bin + 1])}`);
  const quantile = (title, place) => ({ title, kind: "number", sort: (row) => row.quantiles[place], cell: (row) => (row.quantiles[place] >= 100 ? whole : short)(row.quantiles[place]) });
  const [first, last] = [edges[0], edges[edges.length - 1]];
  const middle = measure === "turns" ? (first + last) / 2 : Math.sqrt(first * last);
  const axis = el("div", { class: "axis-labels" }, [first, middle, last].map((edge) => el("span", null, short(edge))));
  const columns = [
    { title: "Dataset", kind: "text", sort: (row) => row.name, cell: (row) => row.name },
    { title: [el("div", null, unit), axis], kind: "wide", cell: (row) => histogram(row.counts,
      (bin, count) => `${range(bin)}: ${whole(count)} (${percent(count / row.number, 1)})`,
      `${one.title} of ${row.name}: median ${short(row.quantiles[2])}`) },
    { title: "Number", kind: "number", sort: (row) => row.number, cell: (row) => whole(row.number) },
    quantile("Least", 0), quantile("5 %", 1), quantile("Median", 2), quantile("95 %", 3), quantile("Most", 4),
  ];
  return table(columns, one.datasets, { class: "spread" });
}

function audit() {
  if (findings === null) {
    return section("findings", "Findings", null, el("div", { class: "card" }, el("p", null, "No audit has been run on this version: vlm-prep audit, then vlm-prep report.")));
  }
  const order = { E: 0, W: 1, I: 2 };
  const found = findings.filter((one) => one.status === "found").sort((a, b) => order[a.severity] - order[b.severity]);
  const clean = findings.filter((one) => one.status === "clean");
  const notRun = findings.filter((one) => one.status === "not_run");
  const list = (title, ones, text) => (ones.length === 0 ? null : el("details", { class: "quiet" }, el("summary", null, `${plural(ones.length, "check")} ${title}`), el("ul", null, ones.map((one) => el("li", null, text(one))))));
  return section("findings", "Findings", `${plural(findings.length, "check")} of the audit: ${whole(found.length)} found something, ${whole(clean.length)} found nothing, ${whole(notRun.length)} could not be run.`,
    found.length ? el("div", { class: "card" }, found.map(finding)) : null,
    list("found nothing", clean, (one) => one.title),
    list("not run", notRun, (one) => `${one.title}: ${one.reason ?? "no reason given"}`));
}

function finding(one) {
  const [kind, name] = SEVERITIES[one.severity] ?? ["info", one.severity];
  const columns = one.columns.map((column) => {
    const values = one.rows.map((row) => row[column]);
    const isNumber = values.some((value) => typeof value === "number") && values.every((value) => value === null || typeof value === "number");
    return { title: column, kind: isNumber ? "number" : "text", sort: (row) => row[column], cell: (row) => spelled(row[column]) };
  });
  const shown = one.rows.map((row) => samples[placeOf.get(keyOf(row.dataset, row.sample_id))]).filter((sample) => sample);
  if (shown.some((sample) => thumbnailOf(sample))) {
    columns.unshift({ title: "", kind: "thumb", cell: (row) => thumbnailOf(samples[placeOf.get(keyOf(row.dataset, row.sample_id))]) });
  }
  if (shown.length) {
    columns.push({ title: "", kind: "number", cell: openButton });
  }
  const more = one.num_rows > one.rows.length ? el("p", { class: "soft" }, `${whole(one.rows.length)} of ${whole(one.num_rows)} rows are shown.`) : null;
  return el("details", { class: "finding", "data-name": one.name },
    el("summary", null, el("span", null, el("span", { class: `badge ${kind}` }, name)), el("span", null, one.title), el("span", { class: "number" }, plural(one.num_rows, "row"))),
    el("div", { class: "inside" }, one.reason ? el("p", null, one.reason) : null, one.advice ? el("p", { class: "soft" }, one.advice) : null,
      one.rows.length ? table(columns, one.rows) : null, more));
}

function openButton(row) {
  const place = placeOf.get(keyOf(row.dataset, row.sample_id));
  if (place === undefined) return null;
  return el("button", { class: "plain", type: "button", "aria-label": `Open ${row.dataset}/${row.sample_id}`, onclick: () => browser.openPlace(place) }, "Open");
}

function spelled(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? number.format(value) : short(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

function wordsOf(sample) {
  return sample.turns.flatMap(([, ...parts]) => parts.map((part) => (Array.isArray(part) ? part[0] : part))).filter((part) => typeof part === "string");
}

function kindOf(sample) {
  if (sample.state === "rejected") return "rejected";
  if (sample.num_videos) return "video";
  if (sample.num_images > 1) return "images";
  return sample.num_images ? "image" : "text";
}

const KINDS = { image: "one image", images: "several images", video: "video", text: "text only" };

class Browser {
  constructor() {
    this.shown = samples.map((_, place) => place);
    this.active = 0;
    this.rows = new Map();
    this.space = el("div", { class: "space" });
    this.list = el("div", { class: "list", role: "listbox", tabindex: 0, "aria-label": "Samples", onscroll: () => this.draw(), onkeydown: (event) => this.pressed(event) }, this.space);
    this.count = el("p", { class: "count", role: "status" });
    this.dialog = el("dialog", { "aria-labelledby": "sample-title", onkeydown: (event) => this.pressedInside(event), onclick: (event) => event.target === this.dialog && this.dialog.close() });
    this.fields = this.filters();
    new ResizeObserver(() => this.draw()).observe(this.list);
    addEventListener("keydown", (event) => {
      const isTyping = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName);
      if (event.key !== "/" || isTyping || this.dialog.open) return;
      event.preventDefault();
      this.fields.search.focus();
    });
  }

  filters() {
    const change = () => this.filter();
    const select = (label, all, options) => el("select", { onchange: change, "aria-label": label }, el("option", { value: "" }, all), options.map(([value, title]) => el("option", { value }, title)));
    const present = (values) => [...new Set(values)].filter((value) => value !== null).sort();
    return {
      dataset: select("Dataset", "all datasets", present(samples.map((one) => one.dataset)).map((name) => [name, name])),
      state: select("Use", "used or not", Object.entries(STATES).filter(([state]) => samples.some((one) => one.state === state)).map(([state, [, name]]) => [state, name])),
      reason: select("Reason", "any reason", present(samples.map((one) => one.reason)).map((name) => [name, name])),
      kind: select("Media", "any media", Object.entries(KINDS).filter(([kind]) => samples.some((one) => kindOf(one) === kind))),
      least: el("input", { type: "number", min: 0, placeholder: "least", "aria-label": "Least tokens", oninput: change }),
      most: el("input", { type: "number", min: 0, placeholder: "most", "aria-label": "Most tokens", oninput: change }),
      search: el("input", { type: "search", placeholder: "words or id", "aria-label": "Search", oninput: change, onkeydown: (event) => this.toList(event) }),
    };
  }

  section() {
    const { dataset, state, reason, kind, least, most, search } = this.fields;
    const labelled = (title, field, attributes) => el("label", attributes, title, field);
    const about = samples.length < pageData.num_samples
      ? `${whole(samples.length)} of ${whole(pageData.num_samples)} samples, a seeded choice: examples of the findings first, some of every reason, then by size of the dataset.`
      : `All ${whole(samples.length)} samples of the sources.`;
    const keys = el("p", { class: "keys" }, [["/"], "search", ["↑", "↓"], "choose", ["Enter"], "open", ["←", "→"], "the one before or after", ["Esc"], "close"].map((one) => (Array.isArray(one) ? one.map((key) => el("kbd", null, key)) : el("span", null, one))));
    this.filter();
    return section("samples", "Samples", about,
      el("div", { class: "filters" }, labelled("Search", search, { class: "grow" }), labelled("Dataset", dataset), labelled("Use", state), reason.options.length > 1 ? labelled("Reason", reason) : null,
        labelled("Media", kind), labelled("Tokens", el("span", { class: "tokens" }, least, "–", most)),
        el("button", { class: "plain", type: "button", onclick: () => this.reset() }, "Clear")),
      this.count, this.list, keys, this.dialog);
  }

  reset() {
    for (const field of Object.values(this.fields)) field.value = "";
    this.filter();
  }

  // Shows what another section points at.
  show(values) {
    this.reset();
    for (const [name, value] of Object.entries(values)) this.fields[name].value = value;
    this.filter();
    document.getElementById("samples").scrollIntoView();
    this.list.focus({ preventScroll: true });
  }

  filter() {
    const { dataset, state, reason, kind, least, most, search } = this.fields;
    const words = search.value.toLowerCase().split(/\s+/).filter((word) => word);
    this.shown = [];
    for (const [place, one] of samples.entries()) {
      if (dataset.value && one.dataset !== dataset.value) continue;
      if (state.value && one.state !== state.value) continue;
      if (reason.value && one.reason !== reason.value) continue;
      if (kind.value && kindOf(one) !== kind.value) continue;
      if (least.value && !(one.total_tokens >= Number(least.value))) continue;
      if (most.value && !(one.total_tokens <= Number(most.value))) continue;
      if (words.length) {
        one.haystack ??= [one.dataset, one.id, one.detail ?? "", ...wordsOf(one)].join("\n").toLowerCase();
        if (!words.every((word) => one.haystack.includes(word))) continue;
      }
      this.shown.push(place);
    }
    this.count.textContent = this.shown.length === samples.length ? plural(samples.length, "sample") : `${whole(this.shown.length)} of ${plural(samples.length, "sample")}`;
    this.active = 0;
    this.list.scrollTop = 0;
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.draw();
  }

  // Only the rows that can be seen are in the page: the list may hold any number.
  draw() {
    this.space.style.height = `${this.shown.length * ROW_HEIGHT}px`;
    const first = Math.max(0, Math.floor(this.list.scrollTop / ROW_HEIGHT) - 4);
    const last = Math.min(this.shown.length, Math.ceil((this.list.scrollTop + (this.list.clientHeight || 640)) / ROW_HEIGHT) + 4);
    for (const [number, row] of this.rows) {
      if (number < first || number >= last) {
        row.remove();
        this.rows.delete(number);
      }
    }
    for (let number = first; number < last; number += 1) {
      if (!this.rows.has(number)) {
        const row = this.item(number, samples[this.shown[number]]);
        this.rows.set(number, row);
        this.space.append(row);
      }
      const isActive = number === this.active;
      this.rows.get(number).classList.toggle("active", isActive);
      this.rows.get(number).setAttribute("aria-selected", String(isActive));
    }
    if (this.shown.length) this.list.setAttribute("aria-activedescendant", `item-${this.active}`);
    else this.list.removeAttribute("aria-activedescendant");
    const none = this.space.querySelector(".none");
    if (this.shown.length) none?.remove();
    else if (!none) this.space.append(el("p", { class: "none" }, "No sample is like this."));
  }

  item(number, sample) {
    const row = el("div", { class: "item", role: "option", id: `item-${number}`, "aria-setsize": this.shown.length, "aria-posinset": number + 1, onclick: () => this.open(number) },
      el("div", { class: "picture" }, picture(sample)),
      el("div", null, el("div", { class: "says", dir: "auto" }, firstWords(sample)), el("div", { class: "name" }, `${sample.dataset} / ${sample.id}`)),
      el("div", { class: "tokens" }, whole(sample.total_tokens), el("small", null, sample.total_tokens === null ? "" : "tokens")),
      el("div", { class: "state" }, badge(sample.state)));
    row.style.top = `${number * ROW_HEIGHT}px`;
    return row;
  }

  move(number) {
    this.active = Math.max(0, Math.min(this.shown.length - 1, number));
    const top = this.active * ROW_HEIGHT;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    if (top + ROW_HEIGHT > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = top + ROW_HEIGHT - this.list.clientHeight;
    this.draw();
  }

  pressed(event) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / ROW_HEIGHT) - 1);
    const moves = { ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + page, PageUp: this.active - page, Home: 0, End: this.shown.length - 1 };
    if (event.key in moves) this.move(moves[event.key]);
    else if (event.key === "Enter" && this.shown.length) this.open(this.active);
    else return;
    event.preventDefault();
  }

  toList(event) {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    this.list.focus();
  }

  pressedInside(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || this.alone) return;
    event.preventDefault();
    this.step(step);
  }

  step(by) {
    const next = this.active + by;
    if (next >= 0 && next < this.shown.length) this.open(next);
  }

  open(number) {
    this.move(number);
    this.alone = false;
    this.fillDialog(samples[this.shown[this.active]], `${whole(this.active + 1)} of ${whole(this.shown.length)}`);
  }

  // A sample that a finding names, whatever the list shows.
  openPlace(place) {
    this.alone = true;
    this.fillDialog(samples[place], "");
  }

  fillDialog(sample, counted) {
    const close = el("button", { class: "plain", type: "button", onclick: () => this.dialog.close() }, "Close");
    const step = (by, sign, label) => el("button", { class: "plain", type: "button", "aria-label": label, disabled: this.active + by < 0 || this.active + by >= this.shown.length, onclick: () => this.step(by) }, sign);
    const steps = this.alone ? [] : [el("span", { class: "soft number" }, counted), step(-1, "←", "Previous sample"), step(1, "→", "Next sample")];
    this.dialog.replaceChildren(
      el("div", { class: "bar-top" }, el("h3", { id: "sample-title" }, `${sample.dataset} / ${sample.id}`), steps, close),
      el("div", { class: "content", tabindex: -1 }, decision(sample), mediaOf(sample), sample.turns.map((turn) => message(turn, sample)), factsOf(sample)));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.querySelector(".content").focus();
  }
}

// The first picture of a sample, small; null where there is none.
function thumbnailOf(sample) {
  const shown = sample?.media.find((medium) => medium.thumbnail !== undefined);
  return shown ? el("img", { class: "small", src: pageData.thumbnails[shown.thumbnail], alt: "", loading: "lazy" }) : null;
}

function picture(sample) {
  return thumbnailOf(sample) ?? { rejected: "rejected", image: "image", images: "images", video: "video", text: "text" }[kindOf(sample)];
}

function firstWords(sample) {
  if (sample.state === "rejected") return `${sample.reason}${sample.detail ? `: ${sample.detail}` : ""}`.slice(0, 300);
  return wordsOf(sample).join("  ").replace(/\s+/g, " ").slice(0, 300) || "(no words)";
}

function decision(sample) {
  const detail = sample.detail ? ` (${sample.detail})` : "";
  const why = sample.reason ? [" ", el("span", { class: "mono" }, sample.reason), `: ${sample.meaning}${detail}`] : null;
  return el("p", { class: "decision" }, badge(sample.state), why);
}

function mediaOf(sample) {
  if (!sample.media.length) return null;
  const counted = sample.num_images + sample.num_videos;
  const more = counted > sample.media.length ? el("p", { class: "soft" }, `and ${whole(counted - sample.media.length)} more`) : null;
  return el("div", { class: "media" }, sample.media.map((medium) => {
    const url = pageData.thumbnails[medium.thumbnail];
    const length = medium.duration === undefined ? "" : `, ${short(medium.duration)} s`;
    const facts = `${medium.format}, ${whole(medium.width)} × ${whole(medium.height)} px${length}, ${bytes(medium.bytes)}`;
    return el("figure", null,
      url ? el("img", { src: url, alt: `${medium.name} of the sample` }) : el("div", { class: "absent" }, "no thumbnail"),
      el("figcaption", null, el("span", { class: "mono" }, medium.name), el("br"), facts, medium.referenced === false ? " · used by no message" : ""));
  }), more);
}

function message([role, ...parts], sample) {
  const words = parts.map((part) => {
    if (Array.isArray(part)) return el("div", { class: "thought", dir: "auto" }, part[0]);
    if (typeof part === "number") return el("span", { class: "medium" }, sample.media[part].name);
    return part;
  });
  return el("div", { class: `turn${role === "assistant" ? " assistant" : ""}` }, el("div", { class: "role" }, role), el("div", { class: "words", dir: "auto" }, words));
}

function factsOf(sample) {
  const origin = [sample.source_uri, sample.member && `member ${sample.member}`, sample.byte_offset !== null && `byte ${whole(sample.byte_offset)}`];
  const facts = [
    ["Source", origin.filter((one) => one).join(", ")],
    ["Part", el("span", { class: "mono" }, sample.part)],
    sample.shard === null ? null : ["Shard", `${sample.shard}, sample ${whole(sample.index_in_shard)}`],
    sample.total_tokens === null ? null : ["Tokens", `${whole(sample.total_tokens)}, of them ${whole(sample.supervised_tokens)} supervised`],
    sample.num_turns === null ? null : ["Messages", whole(sample.num_turns)],
    sample.num_alternatives > 1 ? ["Alternatives", `${whole(sample.num_alternatives)}; the first is shown`] : null,
  ];
  return el("dl", { class: "facts" }, facts.filter((one) => one).map(([name, value]) => [el("dt", null, name), el("dd", null, value)]));
}

const browser = new Browser();
document.body.append(el("main", null,
  header(),
  navigation([["mix", "Epoch"], ["doors", "Not used"], ["distributions", "Distributions"], ["findings", "Findings"], ["samples", "Samples"]]),
  shares(), doorsTaken(), spreads(), audit(), browser.section()));
