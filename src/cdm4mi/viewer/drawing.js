/* A panel: one slice of a picture, or of a difference, drawn to a canvas with its letters, window and colours. */

const DIFFERENCE = { role: "difference", title: "difference" };
/* Colours from nothing to most, red, green, blue: differences below and above 0 in two hues that all can tell apart. */
const BELOW = [[0, 0, 0], [30, 110, 230], [170, 220, 255]];
const ABOVE = [[0, 0, 0], [230, 120, 20], [255, 225, 150]];
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const OPAQUE = 0xff000000;

/* A pixel (as ImageData has it on a little-endian machine) from stops of a scale at a fraction from 0 to 1. */
function mixed(stops, fraction) {
  const at = Math.min(Math.max(fraction, 0), 1) * (stops.length - 1);
  const n = Math.min(Math.floor(at), stops.length - 2);
  const [r, g, b] = [0, 1, 2].map((c) => Math.round(stops[n][c] + (at - n) * (stops[n + 1][c] - stops[n][c])));
  return (OPAQUE | (b << 16) | (g << 8) | r) >>> 0;
}

const HEATED = Uint32Array.from({ length: 256 }, (_, n) => mixed(HEAT, n / 255));
/* 511 colours from the most below 0 to the most above. */
const SIGNED = Uint32Array.from({ length: 511 }, (_, n) => mixed(n < 255 ? BELOW : ABOVE, Math.abs(n - 255) / 255));

function titleOf(picture) {
  if (picture !== DIFFERENCE || restorations.length < 2) return picture.title;
  return `${DIFFERENCE.title} ${restorations.indexOf(state.restored) + 1}`;
}

function scaleOf(picture) {
  if (picture.role === "difference") return { low: -state.difference, high: state.difference };
  if (picture.role === "uncertainty") return { low: 0, high: state.uncertainty };
  return state.window;
}

/* A colour for each of the 65536 codes of a picture. */
const tables = new Map();
function table(picture) {
  const { low, high } = scaleOf(picture);
  const key = `${low} ${high}`;
  const kept = tables.get(picture.number);
  if (kept && kept.key === key) return kept.colours;
  const colours = kept ? kept.colours : new Uint32Array(65536);
  const start = picture.code(low);
  const gain = 255 / (picture.code(high) - start);
  for (let code = 1; code < 65536; code++) {
    const level = Math.round(Math.min(Math.max((code - start) * gain, 0), 255));
    colours[code] = picture.role === "uncertainty" ? HEATED[level] : OPAQUE | (level * 0x010101);
  }
  colours[0] = OPAQUE;
  tables.set(picture.number, { key, colours });
  return colours;
}

/* One slice as pixels, a voxel each. Returns whether its voxels were loaded. */
function paint(picture, plane, at, t, pixels) {
  const { fixed, across, down, upward } = PLANES[plane];
  const [columns, rows] = [scene.size[across], scene.size[down]];
  const [right, below] = [STRIDES[across], upward ? -STRIDES[down] : STRIDES[down]];
  const first = at[fixed] * STRIDES[fixed] + (upward ? (rows - 1) * STRIDES[down] : 0);
  const minuend = picture === DIFFERENCE ? state.restored : picture;
  const [codes, others] = [minuend.codes(t), input.codes(t)];
  if (!codes || (picture === DIFFERENCE && !others)) return false;
  if (picture === DIFFERENCE) {
    const gain = 255 / state.difference;
    for (let row = 0, n = 0; row < rows; row++) {
      for (let column = 0, from = first + row * below; column < columns; column++, n++, from += right) {
        const value = (minuend.value(codes[from]) - input.value(others[from])) * gain;
        pixels[n] = value === value ? SIGNED[Math.round(Math.min(Math.max(value, -255), 255)) + 255] : OPAQUE;
      }
    }
    return true;
  }
  const colours = table(picture);
  for (let row = 0, n = 0; row < rows; row++) {
    for (let column = 0, from = first + row * below; column < columns; column++, n++, from += right) {
      pixels[n] = colours[codes[from]];
    }
  }
  return true;
}

const element = (name, className, parent) => {
  const made = document.createElement(name);
  made.className = className;
  if (parent) parent.append(made);
  return made;
};

class Panel {
  /* pictures(): what is shown, one picture, or two that a divider parts. */
  constructor(plane, shown) {
    this.plane = plane;
    this.shown = shown;
    this.box = element("figure", "panel");
    this.canvas = element("canvas", "", this.box);
    this.canvas.setAttribute("role", "img");
    this.titles = [element("figcaption", "title", this.box), element("span", "title other", this.box)];
    this.letters = ["left", "right", "top", "bottom"].map((edge) => element("span", `letter ${edge}`, this.box));
    this.legend = element("span", "legend", this.box);
    this.slice = document.createElement("canvas");
    this.canvas.panel = this;
  }

  geometry() {
    const { across, down } = PLANES[this.plane];
    const [width, height] = [across, down].map((axis) => scene.size[axis] * scene.spacing[axis]);
    const fit = Math.min(this.canvas.width / width, this.canvas.height / height);
    const scale = fit * state.zoom; /* device pixels in a millimetre */
    const [u, v] = [across, down].map((axis) => (state.centre[axis] + 0.5) * scene.spacing[axis]);
    const left = this.canvas.width / 2 - u * scale;
    const top = this.canvas.height / 2 - (PLANES[this.plane].upward ? height - v : v) * scale;
    return { across, down, width, height, scale, left, top };
  }

  /* The voxel under a point of the window (CSS pixels), null outside of the scan. */
  voxel(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const ratio = this.canvas.width / box.width;
    const { across, down, scale, left, top } = this.geometry();
    const found = [...state.at];
    found[across] = Math.floor(((clientX - box.left) * ratio - left) / scale / scene.spacing[across]);
    const row = Math.floor(((clientY - box.top) * ratio - top) / scale / scene.spacing[down]);
    found[down] = PLANES[this.plane].upward ? scene.size[down] - 1 - row : row;
    return [across, down].every((axis) => found[axis] >= 0 && found[axis] < scene.size[axis]) ? found : null;
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.box.clientWidth, this.box.clientHeight].map((n) => Math.max(1, Math.round(n * ratio)));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
  }

  /* Returns whether all that is shown was loaded. */
  draw() {
    this.resize();
    const context = this.canvas.getContext("2d");
    const { across, down, width, height, scale, left, top } = this.geometry();
    const shown = this.shown();
    const [columns, rows] = [scene.size[across], scene.size[down]];
    if (this.slice.width !== columns || this.slice.height !== rows) {
      Object.assign(this.slice, { width: columns, height: rows });
      this.image = this.slice.getContext("2d").createImageData(columns, rows);
    }
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    /* Enlarged voxels are shown as they are, not smoothed. */
    context.imageSmoothingEnabled = scale * Math.min(scene.spacing[across], scene.spacing[down]) < 1;
    context.imageSmoothingQuality = "high";
    const split = shown.length > 1 ? left + state.divider * width * scale : 0;
    let complete = true;
    shown.forEach((picture, n) => {
      if (!paint(picture, this.plane, state.at, state.time, new Uint32Array(this.image.data.buffer))) {
        complete = false;
        return;
      }
      this.slice.getContext("2d").putImageData(this.image, 0, 0);
      context.save();
      context.beginPath();
      context.rect(n === 0 ? 0 : split, 0, shown.length > 1 && n === 0 ? split : this.canvas.width, this.canvas.height);
      context.clip();
      context.drawImage(this.slice, left, top, width * scale, height * scale);
      context.restore();
    });
    if (shown.length > 1) this.line(context, [split, 0], [split, this.canvas.height], "#ffd54a", 2);
    if (state.mode === "planes") this.crosshair(context, left, top, height, scale);
    this.label(shown);
    return complete;
  }

  line(context, from, to, colour, width) {
    context.strokeStyle = colour;
    context.lineWidth = width * (window.devicePixelRatio || 1);
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  }

  crosshair(context, left, top, height, scale) {
    const { across, down, upward } = PLANES[this.plane];
    const x = left + (state.at[across] + 0.5) * scene.spacing[across] * scale;
    const v = (state.at[down] + 0.5) * scene.spacing[down];
    const y = top + (upward ? height - v : v) * scale;
    context.globalAlpha = 0.55;
    this.line(context, [x, 0], [x, this.canvas.height], "#4ad5ff", 1);
    this.line(context, [0, y], [this.canvas.width, y], "#4ad5ff", 1);
    context.globalAlpha = 1;
  }

  label(shown) {
    const { across, down, upward, fixed } = PLANES[this.plane];
    const { low, high } = scaleOf(shown[0]);
    const range = `${shownDigits(low)} to ${shownDigits(high)} ${scene.unit}`;
    this.titles[0].textContent = titleOf(shown[0]);
    this.titles[1].textContent = shown.length > 1 ? titleOf(shown[1]) : "";
    if (scene.letters) {
      const vertical = upward ? [...scene.letters[down]].reverse() : scene.letters[down];
      [...scene.letters[across], ...vertical].forEach((letter, n) => (this.letters[n].textContent = letter));
    }
    this.legend.textContent = state.mode === "planes" ? `${this.plane}, ${range}` : range;
    this.legend.dataset.scale = shown[0].role;
    const names = shown.map(titleOf).join(" left of the divider, right of it ");
    const where = `slice ${state.at[fixed] + 1} of ${scene.size[fixed]}`;
    this.canvas.setAttribute("aria-label", `${names}, ${this.plane}, ${where}, ${range}`);
    this.box.classList.toggle("active", state.mode === "planes" && this.plane === state.plane);
  }
}

/* A number with the digits that its size and the scan's values bear. */
function digits(value) {
  if (!Number.isFinite(value)) return "no value";
  if (Math.abs(value) >= 1000 || Number.isInteger(value)) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}
const shownDigits = (value) => digits(value).replace("-", "−");
