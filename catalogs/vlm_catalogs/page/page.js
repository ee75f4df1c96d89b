// Helpers of every page: elements whose texts are texts, numbers as people read them, small charts.
const pageData = JSON.parse(document.getElementById("data").textContent);
const number = new Intl.NumberFormat("en-US");
const SVG = "http://www.w3.org/2000/svg";

// An element with attributes (on<event> is a listener) and children; a child that is no node becomes text.
function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

function whole(value) {
  return value === null || value === undefined ? "–" : number.format(Math.round(value));
}

function percent(share, digits = 2) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;
}

// Three digits with k, M, G; whole numbers below a thousand.
function short(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return `${(value / size).toPrecision(3)} ${sign}`;
  }
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
}

function bytes(value) {
  return value < 1000 ? `${value} B` : `${short(value)}B`;
}

function plural(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

// A share as a bar of a track that ends at ``largest``, with a mark at what was asked for.
function shareBar(share, asked, label, largest = 1) {
  const width = 100;
  const parts = [
    svg("rect", { class: "track", x: 0, y: 3, width, height: 10, rx: 2 }),
    svg("rect", { class: "bar", x: 0, y: 3, width: share ? Math.max(0.5, (width * share) / largest) : 0, height: 10, rx: 2 }),
  ];
  if (asked !== null && asked !== undefined) {
    parts.push(svg("rect", { class: "asked", x: Math.min(width - 0.8, (width * asked) / largest), y: 0, width: 0.8, height: 16 }));
  }
  const view = { class: "share", viewBox: `0 0 ${width} 16`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  return svg("svg", view, svg("title", null, label), parts);
}

// Counts as columns over shared bins; every column says what it counts.
function histogram(counts, describe, label) {
  const largest = Math.max(1, ...counts);
  const columns = counts.map((count, place) => {
    const height = count ? Math.max(1, (38 * count) / largest) : 0;
    const column = { class: "bar", x: place + 0.08, y: 40 - height, width: 0.84, height };
    return svg("g", null, svg("title", null, describe(place, count)),
      svg("rect", { class: "touch", x: place, y: 0, width: 1, height: 40 }), svg("rect", column));
  });
  const line = svg("rect", { class: "axis", x: 0, y: 39.5, width: counts.length, height: 0.5 });
  const view = { class: "histogram", viewBox: `0 0 ${counts.length} 40`, preserveAspectRatio: "none", role: "img" };
  return svg("svg", { ...view, "aria-label": label }, line, columns);
}

// A table whose columns are {title, cell(row), kind: "text" | "number" | "wide", sort(row)}; a click on a head sorts.
function table(columns, rows, attributes) {
  const body = el("tbody", null);
  let sorted = null;
  let falling = true;
  const draw = () => {
    const shown = sorted === null ? rows : [...rows].sort((a, b) => compare(sorted.sort(a), sorted.sort(b)) * (falling ? -1 : 1));
    body.replaceChildren(...shown.map((row) => el("tr", null, columns.map((column) => el("td", { class: column.kind }, column.cell(row))))));
  };
  const heads = columns.map((column) => {
    const click = () => {
      falling = sorted === column ? !falling : column.kind !== "text";
      sorted = column;
      for (const [place, each] of heads.entries()) {
        if (columns[place] === column) each.setAttribute("aria-sort", falling ? "descending" : "ascending");
        else each.removeAttribute("aria-sort");
      }
      draw();
    };
    const title = column.sort ? el("button", { type: "button", class: "head", onclick: click }, column.title) : column.title;
    return el("th", { class: column.kind, scope: "col" }, title);
  });
  draw();
  return el("div", { class: "scroll" }, el("table", attributes, el("thead", null, el("tr", null, heads)), body));
}

function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(b) : (a ?? -Infinity) - (b ?? -Infinity);
}

function section(id, title, about, ...children) {
  const text = about ? el("p", { class: "about" }, about) : null;
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), text, children);
}

function tile(value, label, about) {
  return el("div", { class: "tile", title: about }, el("b", null, value), el("span", null, label));
}

// Points [x, mean, least, most] as a line over the band of least and most; pointer and arrow keys read single points.
function lineChart(points, label, format = short) {
  const [width, height] = [600, 150];
  const [first, last] = [points[0][0], points[points.length - 1][0]];
  const low = Math.min(...points.map((point) => point[2]));
  const high = Math.max(...points.map((point) => point[3]));
  const across = (x) => (last > first ? ((x - first) / (last - first)) * width : width / 2);
  const up = (y) => (high > low ? height - ((y - low) / (high - low)) * height : height / 2);
  const path = (pairs) => `M${pairs.map(([x, y]) => `${across(x).toFixed(2)},${up(y).toFixed(2)}`).join("L")}`;
  const band = [...points.map((point) => [point[0], point[3]]), ...[...points].reverse().map((point) => [point[0], point[2]])];
  const cursor = svg("line", { class: "cursor", y1: 0, y2: height, x1: -9, x2: -9 });
  const view = {
    class: "line-chart", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", tabindex: 0,
    "aria-label": `${label}: ${format(points[0][1])} at ${whole(first)}, ${format(points[points.length - 1][1])} at ${whole(last)}`,
    "data-points": points.length,
  };
  const readout = el("output", { class: "readout" });
  let place = points.length - 1;
  const read = (wanted) => {
    place = Math.max(0, Math.min(points.length - 1, wanted));
    const [x, mean, least, most] = points[place];
    readout.textContent = `${whole(x)}: ${format(mean)}${least < most ? ` (${format(least)} to ${format(most)})` : ""}`;
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, across(x));
  };
  const point = (event) => {
    const box = chart.getBoundingClientRect();
    const x = first + ((event.clientX - box.left) / box.width) * (last - first);
    const after = points.findIndex((one) => one[0] >= x);
    const nearer = after > 0 && x - points[after - 1][0] < points[after][0] - x ? after - 1 : after;
    read(after < 0 ? points.length - 1 : nearer);
  };
  const press = (event) => {
    const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: points.length - 1 };
    if (event.key in moves) {
      event.preventDefault();
      read(moves[event.key]);
    }
  };
  const line = points.length > 1 ? svg("path", { class: "line", d: path(points.map((one) => [one[0], one[1]])) })
    : svg("circle", { class: "bar", cx: across(first), cy: up(points[0][1]), r: 3 });
  const chart = svg("svg", { ...view, onpointermove: point, onkeydown: press },
    svg("path", { class: "band", d: `${path(band)}Z` }), line, cursor);
  read(place);
  return el("figure", { class: "chart" },
    el("div", { class: "plot" }, el("div", { class: "ends" }, el("span", null, format(high)), el("span", null, format(low))), chart),
    el("figcaption", null, el("span", null, whole(first)), readout, el("span", null, whole(last))));
}

// The means of points as a small line without axes.
function sparkline(points, label) {
  const values = points.map((point) => point[1]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const across = (place) => (values.length > 1 ? (100 * place) / (values.length - 1) : 50);
  const d = values.map((value, place) => `${across(place).toFixed(2)},${(high > low ? 23 - (22 * (value - low)) / (high - low) : 12).toFixed(2)}`);
  const view = { class: "sparkline", viewBox: "0 0 100 24", preserveAspectRatio: "none", role: "img", "aria-label": label, "data-points": values.length };
  return svg("svg", view, svg("title", null, label), svg("path", { class: "line", d: `M${d.join("L")}` }));
}
