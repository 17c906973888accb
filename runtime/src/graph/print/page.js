"use strict";
// Draws the edges between what is visible, and redraws them whenever a box opens or closes.
const main = document.getElementById("graph");
const svg = document.getElementById("edges");
const data = JSON.parse(document.getElementById("data").textContent);
const NS = "http://www.w3.org/2000/svg";

// What stands for an operation: itself, or the outermost closed module around it.
function shown(element) {
  let result = element;
  for (let e = element.parentElement; e && e !== main; e = e.parentElement) {
    if (e.tagName === "DETAILS" && !e.open) result = e;
  }
  return result;
}

// The innermost open module around both.
function shared(a, b) {
  let e = a.parentElement;
  while (e && !(e.tagName === "DETAILS" && e.contains(b))) e = e.parentElement;
  return e || main;
}

function add(parent, name, attributes, text) {
  const e = document.createElementNS(NS, name);
  for (const key in attributes) e.setAttribute(key, attributes[key]);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}

function draw() {
  svg.replaceChildren();
  svg.setAttribute("width", 1);
  svg.setAttribute("height", 1);
  const origin = main.getBoundingClientRect();
  svg.setAttribute("width", origin.width);
  svg.setAttribute("height", origin.height);
  const marker = add(add(svg, "defs", {}), "marker", {
    id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto",
  });
  add(marker, "path", { d: "M0 0 L8 4 L0 8 z" });

  const boxes = new Map();
  const box = (e) => {
    if (!boxes.has(e)) {
      const r = e.getBoundingClientRect();
      boxes.set(e, {
        left: r.left - origin.left, right: r.right - origin.left, top: r.top - origin.top,
        bottom: r.bottom - origin.top, x: (r.left + r.right) / 2 - origin.left, fed: [], lanes: 0,
      });
    }
    return boxes.get(e);
  };
  const wires = new Map();
  for (const [from, to, label] of data.edges) {
    const a = shown(document.getElementById(from)), b = shown(document.getElementById(to));
    if (a === b) continue;
    const key = a.id + " " + b.id;
    if (!wires.has(key)) wires.set(key, { a, b, labels: new Set() });
    wires.get(key).labels.add(label);
  }
  for (const wire of wires.values()) box(wire.b).fed.push(wire);
  // Several edges into one box land side by side, in the order of where they come from.
  for (const target of boxes.values()) {
    target.fed.sort((p, q) => box(p.a).x - box(q.a).x);
    target.fed.forEach((wire, i) => { wire.shift = (i - (target.fed.length - 1) / 2) * 12; });
  }
  // What an edge must not run across: operations and closed modules.
  const solid = [...main.querySelectorAll(".op, details.module:not([open])")].filter((e) => shown(e) === e).map(box);
  const clear = (p, q, bx, end) => {
    if (solid.length > 1500) return end - p.bottom < 110;
    const between = solid.filter((s) => s !== p && s !== q && s.bottom > p.bottom && s.top < end);
    for (let i = 1; i < 12; i++) {
      // The same curve as is drawn: its control points lie half way down.
      const t = i / 12, ease = t * t * (3 - 2 * t);
      const x = p.x + (bx - p.x) * ease, y = p.bottom + (end - p.bottom) * (1.5 * t - 1.5 * t * t + t * t * t);
      if (between.some((s) => x > s.left - 6 && x < s.right + 6 && y > s.top - 4 && y < s.bottom + 4)) return false;
    }
    return true;
  };
  const named = new Set(), names = [];
  for (const { a, b, labels, shift } of wires.values()) {
    const p = box(a), q = box(b), bx = q.x + shift, dy = q.top - p.bottom, end = q.top - 1;
    let d, tx = p.x, ty = p.bottom + Math.min(22, Math.max(dy, 0) / 2 + 3);
    if (dy > 0 && clear(p, q, bx, end)) {
      d = `M${p.x} ${p.bottom} C${p.x} ${p.bottom + dy / 2} ${bx} ${end - dy / 2} ${bx} ${end}`;
    } else if (dy > 0) {
      // Past other rows: along the left side of the module around both.
      const lane = box(shared(a, b)), x = lane.left + 8 + (lane.lanes++ % 6) * 6;
      d = `M${p.x} ${p.bottom} C${p.x} ${p.bottom + 26} ${x} ${p.bottom + 6} ${x} ${p.bottom + 40}` +
          ` L${x} ${end - 40} C${x} ${end - 6} ${bx} ${end - 26} ${bx} ${end}`;
    } else {
      // Back up, or beside: along the right side.
      const x = Math.max(p.right, q.right) + 26, py = (p.top + p.bottom) / 2, qy = Math.min(q.top + 14, (q.top + q.bottom) / 2);
      d = `M${p.right} ${py} C${x} ${py} ${x} ${qy} ${q.right + 1} ${qy}`;
      tx = x; ty = (py + qy) / 2;
    }
    const ends = { "data-a": a.id, "data-b": b.id };
    add(svg, "path", { d, "marker-end": "url(#arrow)", ...ends });
    // A value that goes to several places is named once.
    const text = [...labels].filter((l) => !named.has(a.id + " " + l));
    text.forEach((l) => named.add(a.id + " " + l));
    const shapes = text.slice(0, 3).map((l) => data.labels[l]);
    if (text.length > 3) shapes.push("+" + (text.length - 3));
    if (shapes.length) names.push([{ x: tx, y: ty, ...ends }, shapes.join("  ")]);
  }
  // Above all edges.
  for (const [attributes, text] of names) add(svg, "text", attributes, text);
}

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
document.addEventListener("toggle", redraw, true);
new ResizeObserver(redraw).observe(main);

function heat(event, on) {
  const e = event.target.closest && event.target.closest(".op, summary");
  if (!e) return;
  const id = e.tagName === "SUMMARY" ? e.parentElement.id : e.id;
  for (const w of svg.querySelectorAll(`[data-a="${id}"], [data-b="${id}"]`)) w.classList.toggle("hot", on);
}
main.addEventListener("mouseover", (e) => heat(e, true));
main.addEventListener("mouseout", (e) => heat(e, false));
main.addEventListener("focusin", (e) => heat(e, true));
main.addEventListener("focusout", (e) => heat(e, false));

const modules = [...document.querySelectorAll(".module")];
document.getElementById("open").onclick = () => modules.forEach((m) => { m.open = true; });
document.getElementById("close").onclick = () => modules.forEach((m) => { m.open = m.id === "m0"; });

const root = document.documentElement;
root.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches);
document.getElementById("theme").onclick = () => root.classList.toggle("dark");

function reveal(element) {
  for (let e = element.parentElement; e && e !== main; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
}
const search = document.getElementById("search"), found = document.getElementById("found");
let hits = [], next = 0;
search.oninput = () => {
  const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  hits = [];
  next = 0;
  for (const e of document.querySelectorAll(".op, .module")) {
    const hit = words.length > 0 && words.every((w) => e.dataset.name.includes(w));
    e.classList.toggle("hit", hit && e.classList.contains("op"));
    if (hit) { hits.push(e); reveal(e); }
  }
  document.body.classList.toggle("searching", hits.length > 0);
  found.textContent = words.length ? hits.length + " found" : "";
};
search.onkeydown = (event) => {
  if (event.key !== "Enter" || !hits.length) return;
  hits[next % hits.length].scrollIntoView({ block: "center", inline: "center", behavior: "smooth" });
  next += 1;
};
addEventListener("hashchange", () => {
  const e = document.getElementById(location.hash.slice(1));
  if (e) { reveal(e); e.scrollIntoView({ block: "center" }); }
});
draw();
