/* State of the page, its controls, pointer and keys. */

const $ = (id) => document.getElementById(id);
const bounded = (value, low, high) => Math.min(Math.max(value, low), high);
const flat = scene.size.includes(1); /* one image: it has one plane */
const middle = scene.size.map((n) => n >> 1);
const state = {
  mode: restorations.length || flat || uncertainty ? "side" : "planes",
  plane: PLANE_OF_AXIS[scene.acquired],
  picture: input, /* in three planes */
  restored: restorations[0],
  flipped: false,
  time: 0,
  at: [...middle],
  centre: scene.size.map((n) => (n - 1) / 2),
  zoom: 1,
  divider: 0.5,
  window: { low: scene.presets[0].low, high: scene.presets[0].high },
  difference: scene.difference,
  uncertainty: scene.uncertainty,
};
const MOST_ZOOM = 40;
let panels = [];

/* ---- what is shown ---- */

function shownPictures() {
  return [input, ...restorations, ...(state.restored ? [DIFFERENCE] : []), ...(uncertainty ? [uncertainty] : [])];
}

/* Space puts the restored picture where the input is, and back. */
function flippable(picture) {
  if (!state.flipped || !state.restored) return picture;
  if (picture === input) return state.restored;
  return picture === state.restored && state.mode === "planes" ? input : picture;
}

function build() {
  const stage = $("stage");
  stage.replaceChildren();
  if (state.mode === "planes") {
    const planes = Object.keys(PLANES).filter((plane) => scene.size[PLANES[plane].fixed] > 1 || plane === state.plane);
    panels = planes.map((plane) => new Panel(plane, () => [flippable(state.picture)]));
  } else if (state.mode === "slider") {
    panels = [new Panel(state.plane, () => (state.flipped ? [state.restored, input] : [input, state.restored]))];
  } else {
    panels = shownPictures().map((picture) => new Panel(state.plane, () => [flippable(picture)]));
  }
  stage.append(...panels.map((panel) => panel.box));
  arrange();
  refresh();
}

/* As many columns as make the pictures largest. */
function arrange() {
  const stage = $("stage");
  const size = (axis) => scene.size[axis] * scene.spacing[axis];
  const width = Math.max(...panels.map((panel) => size(PLANES[panel.plane].across)));
  const height = Math.max(...panels.map((panel) => size(PLANES[panel.plane].down)));
  let best = { scale: 0 };
  for (let columns = 1; columns <= panels.length; columns++) {
    const rows = Math.ceil(panels.length / columns);
    const scale = Math.min(stage.clientWidth / columns / width, stage.clientHeight / rows / height);
    if (scale > best.scale) best = { scale, columns, rows };
  }
  stage.style.gridTemplateColumns = `repeat(${best.columns || 1}, minmax(0, 1fr))`;
  stage.style.gridTemplateRows = `repeat(${best.rows || 1}, minmax(0, 1fr))`;
}

let waiting = false;
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const drawn = panels.map((panel) => panel.draw());
    describe();
    if (drawn[0] && !performance.getEntriesByName("first picture").length) performance.mark("first picture");
  });
}

function describe() {
  const { fixed } = PLANES[state.plane];
  const total = scene.size[fixed];
  Object.assign($("slice"), { max: total, value: state.at[fixed] + 1, disabled: total < 2 });
  $("slice-at").textContent = `${state.plane} ${state.at[fixed] + 1} / ${total}`;
  $("slice").setAttribute("aria-valuetext", `${state.plane} slice ${state.at[fixed] + 1} of ${total}`);
  $("time").value = state.time + 1;
  $("time-at").textContent = `time ${state.time + 1} / ${times}`;
  $("divider").value = Math.round(100 * state.divider);
  $("level").value = digits((state.window.low + state.window.high) / 2);
  $("width").value = digits(state.window.high - state.window.low);
  for (const button of document.querySelectorAll("button[data-group]")) {
    const { group, value } = button.dataset;
    const preset = scene.presets[value];
    const on = group === "preset" ? preset.low === state.window.low && preset.high === state.window.high : state[group] === value;
    button.setAttribute("aria-pressed", String(on));
  }
  $("flip").setAttribute("aria-pressed", String(state.flipped));
  $("slider-row").hidden = state.mode !== "slider";
  $("picture-row").hidden = state.mode !== "planes" || pictures.length < 2;
  values();
}

/* Position and values at the voxel under the pointer, or where the planes cross. */
function values(at = state.at) {
  const [x, y, z] = at;
  const ras = [0, 1, 2].map((n) => scene.affine[n][X] * x + scene.affine[n][Y] * y + scene.affine[n][Z] * z + scene.affine[n][3]);
  const millimetres = ras.map((mm, n) => `${"LPIRAS"[n + (mm < 0 ? 0 : 3)]} ${Math.abs(mm).toFixed(1)}`).join("  ");
  const value = (picture) =>
    picture === DIFFERENCE ? state.restored.at(state.time, at) - input.at(state.time, at) : picture.at(state.time, at);
  const parts = shownPictures().map((picture) => `${titleOf(picture)}: ${shownDigits(value(picture))}`);
  const where = scene.letters ? `${millimetres} mm` : `column ${x + 1}, row ${y + 1}`;
  $("values").textContent = `${parts.join(" · ")} ${scene.unit} · ${where}`;
}

/* ---- what changes it ---- */

async function load(t) {
  try {
    await Promise.all(pictures.map((picture) => picture.load(t, refresh)));
    document.body.dataset.complete = String(t);
  } catch (error) {
    problem(error.message);
  }
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

function goto(at) {
  state.at = at.map((n, axis) => bounded(Math.round(n), 0, scene.size[axis] - 1));
  refresh();
}

function step(count) {
  const at = [...state.at];
  at[PLANES[state.plane].fixed] += count;
  goto(at);
}

function stepTime(count) {
  if (times < 2) return step(count);
  state.time = bounded(state.time + count, 0, times - 1);
  load(state.time);
  refresh();
}

function set(name, value) {
  state[name] = value;
  build();
}

function preset(number) {
  const found = scene.presets[number];
  if (!found) return;
  state.window = { low: found.low, high: found.high };
  refresh();
}

function setWindow(level, width) {
  const wide = Math.max(width, input.step, 1e-9);
  state.window = { low: level - wide / 2, high: level + wide / 2 };
  refresh();
}

/* Zoom by a factor about a voxel, which stays where it is on the screen. */
function zoom(factor, about = state.centre) {
  const next = bounded(state.zoom * factor, 1, MOST_ZOOM);
  const share = 1 - state.zoom / next;
  state.centre = state.centre.map((n, axis) => n + (about[axis] - n) * share);
  state.zoom = next;
  if (next === 1) state.centre = scene.size.map((n) => (n - 1) / 2);
  refresh();
}

function move(panel, dx, dy) {
  const ratio = window.devicePixelRatio || 1;
  const { across, down, scale } = panel.geometry();
  const centre = [...state.centre];
  centre[across] -= (dx * ratio) / scale / scene.spacing[across];
  centre[down] -= ((PLANES[panel.plane].upward ? -1 : 1) * dy * ratio) / scale / scene.spacing[down];
  if (state.zoom > 1) state.centre = centre.map((n, axis) => bounded(n, 0, scene.size[axis] - 1));
  refresh();
}

function flip() {
  if (!state.restored) return;
  state.flipped = !state.flipped;
  refresh();
}

/* ---- pointer ---- */

const pointers = new Map();
let dragged = null;

function dragWindow(panel, dx, dy) {
  const role = panel.shown()[0].role;
  const { low, high } = dragged.scale;
  const wide = (high - low) * Math.exp(dx / 200);
  if (role === "difference" || role === "uncertainty") {
    state[role] = Math.max(role === "difference" ? wide / 2 : wide, 1e-9);
    refresh();
  } else {
    setWindow((low + high) / 2 + (dy * (high - low)) / 400, wide);
  }
}

function nearDivider(panel, clientX) {
  if (state.mode !== "slider") return false;
  const box = panel.canvas.getBoundingClientRect();
  const { left, width, scale } = panel.geometry();
  const split = box.left + ((left + state.divider * width * scale) * box.width) / panel.canvas.width;
  return Math.abs(clientX - split) < 20;
}

function moveDivider(panel, clientX) {
  const box = panel.canvas.getBoundingClientRect();
  const { left, width, scale } = panel.geometry();
  state.divider = bounded((((clientX - box.left) * panel.canvas.width) / box.width - left) / (width * scale), 0, 1);
  refresh();
}

function pressed(event) {
  const panel = event.target.panel;
  if (!panel) return;
  event.preventDefault();
  panel.canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (state.mode === "planes" && state.plane !== panel.plane) {
    state.plane = panel.plane;
    refresh();
  }
  const moves = event.button > 0 || event.shiftKey;
  dragged = {
    panel,
    tool: nearDivider(panel, event.clientX) ? "divider" : moves ? "move" : $("drag").value,
    from: [event.clientX, event.clientY],
    scale: { ...scaleOf(panel.shown()[0]) },
    slice: state.at[PLANES[panel.plane].fixed],
    far: false,
  };
}

function moved(event) {
  const before = pointers.get(event.pointerId);
  const at = event.target.panel && event.target.panel.voxel(event.clientX, event.clientY);
  if (!before || !dragged) {
    if (at && event.pointerType !== "touch") values(at);
    return;
  }
  const now = [event.clientX, event.clientY];
  const { panel, tool, from } = dragged;
  if (pointers.size > 1) {
    pinch(event.pointerId, before, now);
  } else if (dragged.far || Math.hypot(now[0] - from[0], now[1] - from[1]) > 3) {
    dragged.far = true;
    const [dx, dy] = [now[0] - from[0], now[1] - from[1]];
    if (tool === "divider") moveDivider(panel, now[0]);
    else if (tool === "move") move(panel, now[0] - before[0], now[1] - before[1]);
    else if (tool === "slices") {
      const to = [...state.at];
      to[PLANES[panel.plane].fixed] = dragged.slice - Math.round(dy / 6);
      goto(to);
    } else dragWindow(panel, dx, dy);
  }
  pointers.set(event.pointerId, now);
}

function pinch(id, before, now) {
  const [other] = [...pointers].filter(([key]) => key !== id).map(([, point]) => point);
  const { panel } = dragged;
  dragged.far = true;
  const was = Math.hypot(before[0] - other[0], before[1] - other[1]);
  const is = Math.hypot(now[0] - other[0], now[1] - other[1]);
  const about = panel.voxel((now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  if (was > 0 && about) zoom(is / was, about);
  move(panel, (now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
}

function released(event) {
  pointers.delete(event.pointerId);
  if (!dragged || pointers.size) return;
  const at = dragged.panel.voxel(event.clientX, event.clientY);
  if (!dragged.far && at) goto(at);
  dragged = null;
}

let wheeled = 0;
function wheel(event) {
  const panel = event.target.panel;
  if (!panel) return;
  event.preventDefault();
  state.plane = panel.plane;
  if (event.ctrlKey || event.metaKey) {
    const at = panel.voxel(event.clientX, event.clientY);
    if (at) zoom(Math.exp(-event.deltaY / 300), at);
    return;
  }
  /* A notch of a wheel is one slice; the small steps of a touchpad add up. */
  wheeled += bounded(event.deltaMode ? 40 * event.deltaY : event.deltaY, -40, 40);
  if (Math.abs(wheeled) < 40) return;
  step(wheeled > 0 ? -1 : 1);
  wheeled = 0;
}

/* ---- keys ---- */

const KEYS = {
  ArrowUp: () => step(1),
  ArrowDown: () => step(-1),
  ArrowRight: () => stepTime(1),
  ArrowLeft: () => stepTime(-1),
  PageUp: () => step(10),
  PageDown: () => step(-10),
  Home: () => step(-scene.size[PLANES[state.plane].fixed]),
  End: () => step(scene.size[PLANES[state.plane].fixed]),
  " ": flip,
  a: () => flat || set("plane", "axial"),
  c: () => flat || set("plane", "coronal"),
  s: () => flat || set("plane", "sagittal"),
  v: () => {
    const modes = [...document.querySelectorAll('button[data-group="mode"]')].filter((b) => !b.hidden).map((b) => b.dataset.value);
    set("mode", modes[(modes.indexOf(state.mode) + 1) % modes.length]);
  },
  "+": () => zoom(1.25),
  "=": () => zoom(1.25),
  "-": () => zoom(0.8),
  0: () => zoom(1 / MOST_ZOOM),
  "?": () => $("help").showModal(),
};
for (const number of [1, 2, 3, 4]) KEYS[number] = () => preset(number - 1);

function key(event) {
  const { tagName, type } = event.target;
  const typing = (tagName === "INPUT" && type === "number") || tagName === "SELECT";
  if (typing || $("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
  /* A button or a slider that has the focus keeps the keys that work it. */
  if (tagName === "BUTTON" && event.key === " ") return;
  if (tagName === "INPUT" && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  const does = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

/* ---- summary ---- */

const CLOSE = 3; /* zoom at which a mark is shown */

function showMark(at) {
  state.plane = PLANE_OF_AXIS[scene.acquired];
  state.zoom = CLOSE;
  state.centre = [...at];
  build();
  goto(at);
}

function showSummary({ heading, colour, lines, marks }) {
  $("summary").hidden = false;
  $("heading").textContent = heading;
  $("heading").dataset.colour = colour;
  for (const [colour, text] of lines) {
    const line = element("li", "", $("lines"));
    line.dataset.colour = colour;
    line.textContent = text;
  }
  for (const { text, at } of marks) {
    const made = element("button", "", element("li", "", $("marks")));
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", () => showMark(at));
  }
}

/* ---- start ---- */

function option(select, value, text) {
  select.append(new Option(text, value));
}

function button(group, value, text, parent) {
  const made = element("button", "", parent);
  made.type = "button";
  Object.assign(made.dataset, { group, value });
  made.textContent = text;
  return made;
}

function start() {
  button("mode", "side", restorations.length || uncertainty ? "Side by side" : "One plane", $("modes"));
  button("mode", "slider", "Slider", $("modes")).hidden = !restorations.length;
  button("mode", "planes", "Three planes", $("modes")).hidden = flat;
  for (const plane of Object.keys(PLANES)) button("plane", plane, plane[0].toUpperCase() + plane.slice(1), $("planes"));
  $("planes").hidden = flat;
  scene.presets.forEach(({ name }, n) => button("preset", n, name, $("presets")));
  restorations.forEach((picture, n) => option($("restored"), n, picture.title));
  $("restored-row").hidden = restorations.length < 2;
  shownPictures().forEach((picture, n) => option($("picture"), n, picture.title));
  $("flip").hidden = !restorations.length;
  $("time-row").hidden = times < 2;
  $("time").max = times;
  $("unit").textContent = scene.unit;
  $("notes").textContent = scene.notes.join(" ");
  $("notes").hidden = !scene.notes.length;
  if (scene.summary) showSummary(scene.summary);
  if (matchMedia("(pointer: coarse)").matches) $("drag").value = "slices";
  const showExtra = (shown) => {
    $("extra").hidden = !shown;
    $("more").setAttribute("aria-expanded", String(shown));
  };
  $("more").hidden = innerWidth > 900;
  showExtra(innerWidth > 900);
  $("more").addEventListener("click", () => showExtra($("extra").hidden));

  document.addEventListener("click", (event) => {
    const { group, value } = event.target.dataset || {};
    if (group === "preset") preset(Number(value));
    else if (group) set(group, value);
  });
  /* The mouse leaves the focus where it was, so that the space bar does not press a button again. */
  document.addEventListener("mousedown", (event) => event.target.tagName === "BUTTON" && event.preventDefault());
  $("slice").addEventListener("input", () => step(Number($("slice").value) - 1 - state.at[PLANES[state.plane].fixed]));
  $("time").addEventListener("input", () => stepTime(Number($("time").value) - 1 - state.time));
  $("divider").addEventListener("input", () => {
    state.divider = Number($("divider").value) / 100;
    refresh();
  });
  for (const name of ["level", "width"]) {
    $(name).addEventListener("change", () => setWindow(Number($("level").value), Number($("width").value)));
  }
  $("restored").addEventListener("change", () => set("restored", restorations[$("restored").value]));
  $("picture").addEventListener("change", () => set("picture", shownPictures()[$("picture").value]));
  $("flip").addEventListener("click", flip);
  $("larger").addEventListener("click", () => zoom(1.25));
  $("smaller").addEventListener("click", () => zoom(0.8));
  $("whole").addEventListener("click", () => zoom(1 / MOST_ZOOM));
  $("keys").addEventListener("click", () => $("help").showModal());
  const stage = $("stage");
  stage.addEventListener("pointerdown", pressed);
  stage.addEventListener("pointermove", moved);
  stage.addEventListener("pointerup", released);
  stage.addEventListener("pointercancel", released);
  stage.addEventListener("wheel", wheel, { passive: false });
  stage.addEventListener("contextmenu", (event) => event.target.panel && event.preventDefault());
  document.addEventListener("keydown", key);
  new ResizeObserver(() => {
    arrange();
    refresh();
  }).observe(stage);
  build();
  if (withVoxels && typeof DecompressionStream === "undefined") {
    problem("This browser is too old for this page: it needs DecompressionStream (Chrome 80, Firefox 113, Safari 16.4).");
  } else {
    load(0);
  }
}

start();
