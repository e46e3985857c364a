"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const map = byId("map"), classes = byId("classes"), spot = byId("spot"), scale = byId("scale");
  const meters = Number(map.dataset.meters);
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
    const longest = meters / pixel.a * Math.min(150, map.clientWidth / 3);
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1, 0.5].map((step) => step * power).find((value) => value <= longest);
    scale.hidden = false;
    scale.style.width = length / meters * pixel.a + "px";
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
