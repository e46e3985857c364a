"""Style sheet and script of a report, embedded in its page: nothing is fetched from anywhere."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; --ink: #1c2024; --faint: #626a72; --rule: #d6dbe0; --back: #f5f6f7; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0 auto; max-width: 1320px; padding: 1.25rem; font: 1rem/1.45 system-ui, sans-serif; color: var(--ink); }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.2rem; }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; }
.faint, figcaption, dt { color: var(--faint); }
.warning { margin: .8rem 0; padding: .5rem .8rem; border-left: 4px solid #d98e04; background: #fff7e6; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: minmax(0, 1fr) minmax(19rem, 26rem); gap: 1.5rem; align-items: start;
  margin-top: 1.2rem; }
.frame { position: relative; border: 1px solid var(--rule); background: var(--back); }
#map { display: block; width: 100%; max-height: 78vh; cursor: grab; touch-action: pan-y; }
#map:active { cursor: grabbing; }
#map:focus-visible { outline: 3px solid #2f6fde; }
#classes { opacity: .55; }
#classes path { stroke: #fff; stroke-width: 1px; vector-effect: non-scaling-stroke; }
#spot { fill: none; stroke: #ff00c8; stroke-width: 3px; vector-effect: non-scaling-stroke; }
#scale { position: absolute; left: .7rem; bottom: .7rem; padding: 0 .4rem; border: 2px solid var(--ink); border-top: 0;
  background: #ffffffc0; font-size: .8rem; text-align: center; pointer-events: none; white-space: nowrap; }
.tools { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin-top: .5rem; }
.tools label { display: flex; gap: .5rem; align-items: center; }
button { font: inherit; color: inherit; background: #fff; border: 1px solid var(--rule); border-radius: 4px; cursor: pointer; }
.tools button { min-width: 2.6rem; min-height: 2.4rem; padding: 0 .7rem; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .32rem .4rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: middle; }
th { font-weight: 600; }
th.number, td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td label { display: flex; gap: .5rem; align-items: center; overflow-wrap: anywhere; }
td input { flex: none; width: 1.1rem; height: 1.1rem; margin: 0; }
.swatch { flex: none; width: 1rem; height: 1rem; border: 1px solid #00000060; }
.bar { display: block; height: .35rem; margin-top: .2rem; }
.scroll { max-height: 78vh; overflow: auto; }
.chart { display: block; width: 100%; max-width: 44rem; }
.chart text { font: 12px system-ui, sans-serif; fill: var(--faint); }
.groups { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: .4rem 2rem; }
.groups .patches { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .8rem; }
.patches { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure button { display: block; width: 100%; padding: 0; border: 0; border-radius: 0; }
figure img { display: block; width: 100%; }
figcaption { margin-top: .3rem; font-size: .87rem; line-height: 1.35; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
dl { display: grid; grid-template-columns: minmax(8rem, 14rem) minmax(0, 1fr); gap: .25rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow: auto; padding: .8rem; background: var(--back); font-size: .8rem; }
summary { margin-top: .8rem; cursor: pointer; }
@media (max-width: 760px) {
  body { padding: .8rem; }
  .columns { grid-template-columns: minmax(0, 1fr); }
  #map, .scroll { max-height: 65vh; }
  .patches { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
  .groups .patches { gap: .5rem; }
  .chart text { font-size: 20px; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print { .tools, #scale { display: none; } #map, .scroll { max-height: none; } figure { break-inside: avoid; } }
"""

SCRIPT = """
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const map = byId("map"), classes = byId("classes"), spot = byId("spot"), scale = byId("scale");
  const metres = Number(map.dataset.metres);
  const [, , width, height] = map.getAttribute("viewBox").split(" ").map(Number);
  const closest = 80;
  let view = { x: 0, y: 0, zoom: 1 };

  function show() {
    const w = width / view.zoom, h = height / view.zoom;
    view.x = Math.min(Math.max(view.x, 0), width - w);
    view.y = Math.min(Math.max(view.y, 0), height - h);
    map.setAttribute("viewBox", [view.x, view.y, w, h].join(" "));
    // Whole: a finger scrolls the page. Enlarged: it moves the map.
    map.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
    drawScale();
  }

  function drawScale() {
    const pixel = map.getScreenCTM();
    if (!pixel || !pixel.a) return;
    const longest = metres / pixel.a * Math.min(150, map.clientWidth / 3);
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1, 0.5].map((step) => step * power).find((value) => value <= longest);
    scale.hidden = false;
    scale.style.width = length / metres * pixel.a + "px";
    scale.textContent = length >= 1000 ? length / 1000 + " km" : length >= 1 ? length + " m" : Math.round(length * 100) + " cm";
  }

  function onMap(x, y) {
    return new DOMPoint(x, y).matrixTransform(map.getScreenCTM().inverse());
  }

  function zoom(factor, at) {
    const before = view.zoom;
    view.zoom = Math.min(Math.max(before * factor, 1), closest);
    view.x = at.x - (at.x - view.x) * before / view.zoom;
    view.y = at.y - (at.y - view.y) * before / view.zoom;
    show();
  }

  const middle = () => ({ x: view.x + width / view.zoom / 2, y: view.y + height / view.zoom / 2 });
  const whole = () => { view = { x: 0, y: 0, zoom: 1 }; show(); };

  map.addEventListener("wheel", (event) => {
    if (event.deltaY > 0 && view.zoom === 1) return;
    event.preventDefault();
    zoom(Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 300), onMap(event.clientX, event.clientY));
  }, { passive: false });

  const fingers = new Map();
  map.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    map.setPointerCapture(event.pointerId);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    map.addEventListener(end, (event) => fingers.delete(event.pointerId));
  map.addEventListener("pointermove", (event) => {
    const old = fingers.get(event.pointerId);
    if (!old) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...fingers].filter(([id]) => id !== event.pointerId).map(([, finger]) => finger)[0];
    const from = onMap(old.x, old.y), to = onMap(now.x, now.y);
    fingers.set(event.pointerId, now);
    if (other) {
      const apart = (finger) => Math.hypot(finger.x - other.x, finger.y - other.y);
      zoom(apart(now) / Math.max(apart(old), 1), onMap((now.x + other.x) / 2, (now.y + other.y) / 2));
    } else {
      view.x -= to.x - from.x;
      view.y -= to.y - from.y;
      show();
    }
  });

  const keys = {
    "+": () => zoom(1.5, middle()), "-": () => zoom(1 / 1.5, middle()), "0": whole,
    ArrowLeft: () => { view.x -= 80 / view.zoom; show(); }, ArrowRight: () => { view.x += 80 / view.zoom; show(); },
    ArrowUp: () => { view.y -= 80 / view.zoom; show(); }, ArrowDown: () => { view.y += 80 / view.zoom; show(); },
  };
  map.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  byId("nearer").addEventListener("click", keys["+"]);
  byId("farther").addEventListener("click", keys["-"]);
  byId("whole").addEventListener("click", () => { spot.setAttribute("width", 0); whole(); });
  byId("opacity").addEventListener("input", (event) => { classes.style.opacity = event.target.value / 100; });

  const boxes = [...document.querySelectorAll("input[data-class]")];
  const toggle = (box) => {
    const shape = byId(box.dataset.class);  // none where the class is too small for the map's cells
    if (shape) shape.style.display = box.checked ? "" : "none";
  };
  for (const box of boxes) box.addEventListener("change", () => toggle(box));
  byId("all").addEventListener("click", () => {
    const checked = boxes.some((box) => !box.checked);
    for (const box of boxes) { box.checked = checked; toggle(box); }
  });

  for (const button of document.querySelectorAll("button[data-box]")) {
    button.addEventListener("click", () => {
      const [x, y, w, h] = button.dataset.box.split(" ");
      for (const [name, value] of Object.entries({ x, y, width: w, height: h })) spot.setAttribute(name, value);
      const [atX, atY, side] = button.dataset.at.split(" ").map(Number);
      view.zoom = Math.min(Math.max(Math.min(width, height) / (5 * side), 1), closest);
      view.x = atX - width / view.zoom / 2;
      view.y = atY - height / view.zoom / 2;
      show();
      map.scrollIntoView({ behavior: "smooth", block: "center" });
    });
  }

  window.addEventListener("resize", drawScale);
  for (const control of document.querySelectorAll("[data-script]")) control.hidden = false;
  for (const box of boxes) toggle(box);
  show();
})();
"""
