// The report's page: one position in training for all panels, drawn as they come into view.
// Here: what stands packed in it (pages.py). panels.js, tables.js and moving.js go on.
// `REPORT` has: names of the runs, modes in order, stops {mode: [{key, label, steps: [a step of each run]}]},
// templates {light, dark}.
const REPORT = JSON.parse(document.getElementById("report").textContent);

const by = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

async function inflate(text) {
  const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const TYPES = {
  f8: Float64Array, f4: Float32Array, i4: Int32Array, u4: Uint32Array,
  i2: Int16Array, u2: Uint16Array, i1: Int8Array, u1: Uint8Array,
};

function numbers(told, buffer, start) {
  const count = told.shape.reduce((a, b) => a * b, 1);
  const first = start + told.at;
  let flat;
  if (told.type === "q2") { // see pages.py
    const low = new Uint8Array(buffer, first, count);
    const high = new Uint8Array(buffer, first + count, count);
    flat = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const code = low[i] + 256 * high[i];
      flat[i] = code === 4095 ? NaN : told.low + told.step * code;
    }
  } else {
    const Type = TYPES[told.type];
    if (!Type) throw new Error(`unknown type ${told.type}`);
    flat = new Type(buffer.slice(first, first + count * Type.BYTES_PER_ELEMENT));
  }
  if (told.shape.length === 1) return flat;
  const [rows, columns] = told.shape;
  return Array.from({ length: rows }, (_, i) => flat.subarray(i * columns, (i + 1) * columns));
}

function filled(part, buffer, start) {
  if (Array.isArray(part)) return part.map((each) => filled(each, buffer, start));
  if (part === null || typeof part !== "object") return part;
  if ("at" in part && "shape" in part) return numbers(part, buffer, start);
  const found = {};
  for (const [name, value] of Object.entries(part)) found[name] = filled(value, buffer, start);
  return found;
}

async function unpack(id) {
  const buffer = await inflate(document.getElementById(id).textContent);
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return filled(JSON.parse(text), buffer, 4 + length);
}

async function load(id) { // a script that stands in the page compressed
  const packed = document.getElementById(id);
  if (!packed) return;
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await inflate(packed.textContent));
  document.head.append(script);
}
