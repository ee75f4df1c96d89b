// The page of a run: header, curves, datasets, bad steps, worst samples.
const { facts } = pageData;

function header() {
  const loss = (value) => (typeof value === "number" ? value.toFixed(4) : String(value ?? "–"));
  return el("header", { class: "top" },
    el("p", { class: "label" }, "Run"),
    el("h1", null, pageData.run),
    el("p", { class: "soft" }, `${facts.model} · ${plural(facts.epochs, "epoch")} begun · ${plural(facts.attempts, "attempt")}`),
    el("p", { class: "soft mono" }, `mix ${facts.mix}, version ${facts.mix_version}`),
    el("div", { class: "tiles" },
      tile(whole(facts.steps), "steps"),
      tile(loss(facts.last_loss), `loss of the last step, ${loss(facts.first_loss)} of the first`),
      facts.best_validation === null ? null : tile(loss(facts.best_validation), "best validation loss"),
      tile(short(facts.samples), `samples, ${short(facts.tokens)} tokens`),
      tile(short(facts.tokens_per_second), "useful tokens/s", "median over the steps"),
      tile(percent(facts.padding, 1), "padding", "median over the steps"),
      tile(`${short(facts.wait)} s`, "waited for data", "median over the steps"),
      facts.mfu === null ? null : tile(percent(facts.mfu, 1), "MFU", "median over the steps"),
      tile(whole(facts.bad_steps), facts.bad_steps === 1 ? "bad step" : "bad steps")));
}

const SHARES = new Set(["train/padding_share", "train/mfu", "moe/largest_share_max"]);

function charts() {
  const cards = pageData.curves.map((one) => el("div", { class: "card", "data-curve": one.key },
    el("h3", null, one.title), el("p", { class: "soft" }, one.about),
    lineChart(one.points, one.title, SHARES.has(one.key) ? (value) => percent(value, 1) : short)));
  return section("curves", "Curves", "By step. Where a point stands for several steps, the band is their least and most.",
    el("div", { class: "charts" }, cards));
}

function datasets() {
  const rows = pageData.datasets;
  const name = (row) => row.name;
  const largest = Math.max(0.01, ...rows.flatMap((row) => [row.asked, row.share_of_samples, row.share_of_tokens]));
  const share = (title, field, isAsked) => ({
    title, kind: "wide", sort: (row) => row[field],
    cell: (row) => shareBar(row[field], isAsked(row) ? row.asked : null, `${row.name}: ${percent(row[field])} of ${title.toLowerCase()}`, largest),
  });
  const value = (title, field, show) => ({ title, kind: "number", sort: (row) => row[field], cell: (row) => show(row[field]) });
  const last = (row) => (row.loss.length ? row.loss[row.loss.length - 1][1] : null);
  const columns = [
    { title: "Dataset", kind: "text", sort: name, cell: name },
    { title: "Loss", kind: "wide", cell: (row) => (row.loss.length ? sparkline(row.loss, `loss of ${row.name}: ${short(row.loss[0][1])} to ${short(last(row))}`) : "–") },
    { title: "last", kind: "number", sort: last, cell: (row) => (last(row) === null ? "–" : last(row).toFixed(4)) },
    value("asked", "asked", percent),
    share("Samples", "share_of_samples", (row) => !row.by_tokens), value("realised", "share_of_samples", percent),
    share("Tokens", "share_of_tokens", (row) => row.by_tokens), value("realised", "share_of_tokens", percent),
    value("Samples", "samples", whole),
    value("Repeats", "repeats", (times) => `${times.toFixed(2)} ×`),
  ];
  const key = el("p", { class: "about" }, el("span", { class: "key" }), "trained on so far", el("span", { class: "key mark" }), "asked by the weights");
  return section("datasets", "Datasets", "The loss of each, and its share of what the steps so far have taken. Repeats: how often each selected sample was taken, on average.",
    key, el("div", { class: "card" }, table(columns, rows)));
}

function badSteps() {
  const text = (title, field) => ({ title, kind: "text", sort: (row) => String(row[field]), cell: (row) => String(row[field] ?? "–") });
  const columns = [
    { title: "Step", kind: "number", sort: (row) => row.step, cell: (row) => whole(row.step) },
    text("Reason", "reason"), text("What was done", "action"), text("Loss", "loss"), text("Gradient norm", "grad_norm"),
    { title: "Worst samples", kind: "text", cell: (row) => row.samples.map((one) => el("div", { class: "mono" }, one)) },
  ];
  return section("bad-steps", "Bad steps", "Steps whose loss or gradient was not finite, or a spike; bad_steps.jsonl has all of their samples.",
    el("div", { class: "card" }, pageData.bad_steps.length ? table(columns, pageData.bad_steps) : el("p", null, "None.")));
}

function worst() {
  const finite = pageData.worst.map((one) => one.loss).filter((value) => typeof value === "number");
  const cards = pageData.worst.map((one, place) => card(one, place, Math.max(1e-9, ...finite), `Step ${whole(one.step)}, whose loss was ${loss(one.step_loss)}. `));
  const none = pageData.worst_problem ? el("p", { class: "error" }, pageData.worst_problem) : el("p", null, "No losses of samples were logged.");
  return section("worst", "Worst samples", "Furthest above the loss of their step, each once, in the step where it stood out most.", cards.length ? cards : none);
}

const sections = [["curves", "Curves"], ["datasets", "Datasets"], ["bad-steps", "Bad steps"], ["worst", "Worst samples"]];
document.body.append(el("main", null, header(),
  el("nav", { "aria-label": "Sections" }, sections.map(([id, title]) => el("a", { href: `#${id}` }, title))),
  charts(), datasets(), badSteps(), worst()));
