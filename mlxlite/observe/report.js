"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const make = (tag, options = {}, parent = null) => {
  const element = Object.assign(document.createElement(tag), options);
  if (parent) parent.append(element);
  return element;
};

// Microseconds for people.
function timeText(us) {
  if (us === null) return "-";
  const digits = (x) => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2));
  if (us === 0) return "0";
  if (Math.abs(us) < 1) return digits(us * 1e3) + " ns";
  if (Math.abs(us) < 1e3) return digits(us) + " us";
  if (Math.abs(us) < 1e6) return digits(us / 1e3) + " ms";
  return digits(us / 1e6) + " s";
}

// ---- timeline: lanes of bars [name, start, length, details], of which only what can be seen is in the page

const view = { start: 0, end: data.total };
const lanes = data.lanes.map((lane) => {
  const row = make("div", { className: "lane" }, byId("timeline"));
  make("span", { textContent: lane.name }, row);
  const bars = make("div", { className: "bars" }, row);
  return { ...lane, element: bars };
});
const axis = make("div", { className: "axis" }, byId("timeline"));

function colorOf(name) {
  if (data.colors[name]) return data.colors[name];
  let hash = 7;
  for (const letter of name) hash = (hash * 31 + letter.charCodeAt(0)) % 3600;
  return `hsl(${hash / 10} 65% 72%)`;
}

// The first bar that ends after `time`; bars of a lane are in order and do not overlap.
function firstAfter(bars, time) {
  let low = 0, high = bars.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bars[middle][1] + bars[middle][2] <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

function draw() {
  const width = lanes.length ? lanes[0].element.clientWidth : 0;
  const scale = width / (view.end - view.start);
  for (const lane of lanes) {
    lane.element.replaceChildren();
    let covered = -1;
    for (let i = firstAfter(lane.bars, view.start); i < lane.bars.length && lane.bars[i][1] < view.end; i++) {
      const [name, start, length] = lane.bars[i];
      const left = (start - view.start) * scale;
      const size = Math.max(length * scale, 1);
      if (left + size <= covered) continue; // behind the pixel of the bar before
      covered = Math.max(left, covered) + Math.max(size, 1);
      const text = data.names[name];
      const bar = make("div", {}, lane.element);
      bar.dataset.index = i;
      bar.style.left = left + "px";
      bar.style.width = size + "px";
      bar.style.background = colorOf(text);
      if (size > 34) bar.textContent = text;
    }
  }
  axis.replaceChildren();
  const step = niceStep((view.end - view.start) / Math.max(width / 110, 1));
  for (let t = Math.ceil(view.start / step) * step; t <= view.end; t += step) {
    const left = (t - view.start) * scale;
    make("i", {}, axis).style.left = left + "px";
    if (left > 20 && left < width - 30) make("span", { textContent: timeText(t) }, axis).style.left = left + "px";
  }
  byId("range").textContent = `${timeText(view.end - view.start)} from ${timeText(view.start)}`;
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((f) => f * power >= least);
}

function show(start, end) {
  const length = Math.min(Math.max(end - start, 0.05), data.total);
  view.start = Math.min(Math.max(start, 0), data.total - length);
  view.end = view.start + length;
  draw();
}

function timeAt(x) {
  const box = axis.getBoundingClientRect();
  return view.start + ((x - box.left) / box.width) * (view.end - view.start);
}

const timeline = byId("timeline");
timeline.addEventListener("wheel", (event) => {
  event.preventDefault();
  const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
  const length = view.end - view.start;
  if (sideways) return show(view.start + (event.deltaX / axis.clientWidth) * length, view.end + (event.deltaX / axis.clientWidth) * length);
  const factor = Math.exp(event.deltaY * 0.002), middle = timeAt(event.clientX);
  show(middle - (middle - view.start) * factor, middle + (view.end - middle) * factor);
}, { passive: false });

let dragged = null;
timeline.addEventListener("pointerdown", (event) => {
  dragged = { x: event.clientX, start: view.start, end: view.end };
  timeline.classList.add("dragging");
});
window.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  const moved = ((event.clientX - dragged.x) / axis.clientWidth) * (dragged.end - dragged.start);
  show(dragged.start - moved, dragged.end - moved);
});
window.addEventListener("pointerup", () => {
  dragged = null;
  timeline.classList.remove("dragging");
});
timeline.addEventListener("dblclick", () => show(0, data.total));
byId("all").addEventListener("click", () => show(0, data.total));
byId("first").addEventListener("click", () => data.evaluations.length && zoomTo(0));
window.addEventListener("resize", draw);

function zoomTo(k) {
  const [start, length] = data.evaluations[k];
  show(start - length * 0.05, start + length * 1.05);
}

const tip = byId("tip");
timeline.addEventListener("mousemove", (event) => {
  const element = event.target.closest(".bars div");
  if (!element || dragged) return void (tip.style.display = "none");
  const lane = lanes.find((l) => l.element === element.parentElement);
  const [name, start, length, evaluation, floor, ops] = lane.bars[element.dataset.index];
  const lines = [`${ops !== undefined && ops !== null ? data.names[ops] || data.names[name] : data.names[name]}: ${timeText(length)}`];
  if (floor) lines.push(`floor ${timeText(floor)}, ${((100 * floor) / length).toFixed(0)}% of the time`);
  if (evaluation !== null && evaluation !== undefined) {
    const [, , text] = data.evaluations[evaluation];
    lines.push(text);
  }
  lines.push(`starts at ${timeText(start)}`);
  tip.textContent = lines.join("\n");
  tip.style.display = "block";
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8) + "px";
  tip.style.top = Math.min(event.clientY + 16, window.innerHeight - box.height - 8) + "px";
});
timeline.addEventListener("mouseleave", () => (tip.style.display = "none"));

// ---- the table of nodes

const columns = [
  ["node", (r) => r.name], ["on", (r) => r.device], ["calls", (r) => r.calls], ["total", (r) => r.total],
  ["share", (r) => r.total], ["mean", (r) => r.mean], ["floor", (r) => r.floor], ["of floor", (r) => r.fraction],
];
let sorting = { column: 3, down: true };
const whole = data.rows.reduce((sum, row) => sum + row.total, 0);

function drawTable() {
  const table = byId("nodes");
  table.replaceChildren();
  const head = make("tr", {}, make("thead", {}, table));
  columns.forEach(([title], k) => {
    const cell = make("th", { textContent: title, className: k === sorting.column ? "sorted" : "" }, head);
    if (k === sorting.column) cell.textContent += sorting.down ? " \u25be" : " \u25b4";
    cell.addEventListener("click", () => {
      sorting = { column: k, down: sorting.column === k ? !sorting.down : k > 1 };
      drawTable();
    });
  });
  const key = columns[sorting.column][1];
  const order = [...data.rows].sort((a, b) => {
    const x = key(a), y = key(b);
    const compared = x === null ? (y === null ? 0 : -1) : y === null ? 1 : x < y ? -1 : x > y ? 1 : 0;
    return sorting.down ? -compared : compared;
  });
  const body = make("tbody", {}, table);
  for (const row of order) {
    const line = make("tr", {}, body);
    make("td", { textContent: row.name, title: row.label }, line);
    make("td", { textContent: row.device }, line);
    make("td", { textContent: row.calls }, line);
    make("td", { textContent: timeText(row.total) }, line);
    const share = make("td", { className: "share" }, line);
    make("i", {}, share).style.width = (100 * row.total) / whole + "%";
    make("b", { textContent: ((100 * row.total) / whole).toFixed(1) + "%" }, share);
    make("td", { textContent: timeText(row.mean) }, line);
    make("td", { textContent: timeText(row.floor) }, line);
    const fraction = row.fraction === null ? "-" : (100 * row.fraction).toFixed(0) + "%";
    const grade = row.fraction === null ? "soft" : row.fraction >= 0.6 ? "good" : row.fraction >= 0.25 ? "fair" : "poor";
    make("td", { textContent: fraction, className: grade }, line);
  }
}

draw();
drawTable();
