/* The scene of the page and the voxels of its pictures. */
"use strict";

const scene = JSON.parse(document.getElementById("scene").textContent);
const [X, Y, Z] = [0, 1, 2];
/* The three planes: the axis that is fixed, those to the right and down, whether the latter runs upwards on the screen. */
const PLANES = {
  axial: { fixed: Z, across: X, down: Y, upward: false },
  coronal: { fixed: Y, across: X, down: Z, upward: true },
  sagittal: { fixed: X, across: Y, down: Z, upward: true },
};
const PLANE_OF_AXIS = ["sagittal", "coronal", "axial"];
/* How far one step along x, y and z is in the array of codes (z, y, x). */
const STRIDES = [1, scene.size[X], scene.size[X] * scene.size[Y]];
const KEPT = 6; /* time points of a picture */

/* Puts the codes of one element of the page in their place: zlib in base64, as page.py packs them. Returns how many. */
async function unpack(part, codes) {
  const text = atob(part.textContent);
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const [count, start] = [planes.length / 2, Number(part.dataset.start)];
  for (let n = 0, code = 0; n < count; n++) {
    const folded = planes[n] | (planes[count + n] << 8);
    code += (folded >> 1) ^ -(folded & 1);
    codes[start + n] = code;
  }
  return count;
}

const withVoxels = document.body.dataset.voxels === "here";

/* Resolves when more of the page has arrived. */
function more() {
  return new Promise((resolve) => {
    const observer = new MutationObserver(() => done());
    const done = () => {
      observer.disconnect();
      document.removeEventListener("DOMContentLoaded", done);
      resolve();
    };
    observer.observe(document.body, { childList: true });
    document.addEventListener("DOMContentLoaded", done);
  });
}

/* Fills the codes of one picture at one time, from the page, or from the server that the page came from. */
async function fill(name, codes, progress) {
  if (!withVoxels) {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`the voxels did not come (${answer.status})`);
    codes.set(new Uint16Array(await answer.arrayBuffer()));
    return progress();
  }
  for (let filled = 0, used = 0; filled < codes.length; ) {
    const arrived = document.readyState !== "loading";
    const parts = document.querySelectorAll(`script[data-block="${name}"]`);
    const part = parts[used];
    /* The text of the last element may be cut while the page arrives. */
    if (part && (arrived || part.nextElementSibling)) {
      filled += await unpack(part, codes);
      used++;
      if (times === 1) part.textContent = "";
      progress();
    } else if (arrived) throw new Error("the page is cut short: part of its voxels is missing");
    else await more();
  }
}

class Picture {
  constructor(facts, number) {
    Object.assign(this, facts);
    this.number = number;
    this.kept = new Map();
  }
  /* A map with one time holds for all of them. */
  time(t) {
    return Math.min(t, this.times - 1);
  }
  /* Resolves when all voxels at a time are there; progress() is called as they come. */
  load(t, progress) {
    const time = this.time(t);
    if (!this.kept.has(time)) {
      const entry = { codes: new Uint16Array(scene.size[X] * scene.size[Y] * scene.size[Z]), some: false };
      const coming = () => {
        entry.some = true;
        progress();
      };
      entry.whole = fill(`${this.number}-${time}`, entry.codes, coming);
      entry.whole.catch(() => this.kept.delete(time));
      this.kept.set(time, entry);
      const [oldest] = this.kept.keys();
      if (this.kept.size > KEPT) this.kept.delete(oldest);
    }
    return this.kept.get(time).whole;
  }
  /* The codes at a time, undefined before any of them is there; those that are to come are 0, no value. */
  codes(t) {
    const entry = this.kept.get(this.time(t));
    return entry && entry.some ? entry.codes : undefined;
  }
  value(code) {
    return code === 0 ? NaN : this.low + (code - 1) * this.step;
  }
  code(value) {
    return (value - this.low) / this.step + 1;
  }
  at(t, [x, y, z]) {
    const codes = this.codes(t);
    return codes ? this.value(codes[x + y * STRIDES[Y] + z * STRIDES[Z]]) : NaN;
  }
}

const pictures = scene.pictures.map((facts, number) => new Picture(facts, number));
const input = pictures[0];
const restorations = pictures.filter((picture) => picture.role === "restored");
const uncertainty = pictures.find((picture) => picture.role === "uncertainty");
const times = input.times;
