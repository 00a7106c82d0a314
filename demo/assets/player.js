// The player: draws one run (see demo/runs/frames.py) on canvases, live and afterwards. It asks the
// server for nothing: all steps are in props.value, which only grows while a run goes on. How it
// draws, what it says and how it is moved is in player_draw.js, player_words.js, player_moves.js,
// what ends its last pictures early in player_again.js.

const q = (selector) => element.querySelector(selector);
const MASKED = 32767;
const KNOWN = -1;

let run = null;          // the run drawn now
let built = 0;           // frames already taken into the tables below
let revealedAt = null;   // per cell: frame number from 1, KNOWN, or MASKED
let codes = null;        // per cell: token id
let sureness = null;     // per cell: 0..1000, or -1
let options = null;      // per cell: [ids, shares] or null
let pictures = [];       // per frame: Image; index frames.length is the result
let base = null;         // Image of the photo under an edit
let beginning = null;    // Image of what is there before the first step
let selected = new Set(); // cells marked by hand
let selecting = null;    // while the pointer is down: whether it marks (true) or unmarks
let at = 0;              // position shown: 0 = start, 1..frames = after that step, +1 = result
let follow = true;       // whether new steps move the position along
let view = "image";
let cursor = null;       // cell looked at
let pinned = false;
let inspecting = false;  // keyboard moves the cell instead of the step
let timer = null;
let queued = false;

const frames = () => (run && run.frames) || [];
const positions = () => frames().length + (run && run.result ? 1 : 0);
const cellsPerImage = () => run.rows * run.columns;
const codebook = () => (window.maskgitCodebooks || {})[run && run.model];
const css = (name) => getComputedStyle(q(".mg")).getPropertyValue(name).trim();

function picture(source) {
  const image = new Image();
  image.onload = draw;
  image.src = image.source = source;
  return image;
}

function reset(next) {
  const cells = next.count * next.rows * next.columns;
  built = 0;
  revealedAt = new Int16Array(cells).fill(MASKED);
  codes = new Int32Array(cells).fill(next.mask_id);
  sureness = new Int16Array(cells).fill(-1);
  options = new Array(cells).fill(null);
  pictures = [];
  base = next.base ? picture(next.base) : null;
  beginning = next.start ? picture(next.start) : null;
  selected = new Set();
  tellSelection(next);
  if (next.known) {
    for (let cell = 0; cell < cells; cell++) {
      const code = next.known[cell % next.known.length];
      if (code !== next.mask_id) {
        codes[cell] = code;
        revealedAt[cell] = KNOWN;
      }
    }
  }
  at = 0;
  follow = true;
  cursor = null;
  pinned = false;
  stop();
  buildStage(next);
}

function takeIn(next) {
  if (next && next.forget) {
    if (run && run.kind !== next.forget) return;
    next = null;
  }
  if (!next || !Array.isArray(next.frames)) {
    run = null;
    empty();
    return;
  }
  // Painting while a run goes on must not take its pictures away.
  if (next.kind === "preview" && run && run.frames.length && !run.result && live()) return;
  if (next.gentle && run && run.kind !== next.kind) return;
  const fresh = !run || run.run !== next.run || next.frames.length < built;
  if (fresh) reset(next);
  const first = !run;
  run = next;
  if (fresh && next.kind !== "preview" && next.kind !== "tour" && !next.result) comeIntoView();
  if (next.kind !== "preview") lastNews = performance.now();
  for (; built < next.frames.length; built++) {
    const frame = next.frames[built];
    const per = frame.per_cell || 0;
    pictures[built] = picture(frame.src);
    frame.cells.forEach((cell, i) => {
      revealedAt[cell] = built + 1;
      codes[cell] = frame.ids[i];
      sureness[cell] = frame.sure[i];
      if (per) {
        options[cell] = [
          frame.alternatives.slice(i * per, i * per + per),
          frame.shares.slice(i * per, i * per + per),
        ];
      }
    });
  }
  // Steps that came too fast to be decoded get their picture when the run is over.
  next.frames.forEach((frame, i) => {
    if (pictures[i].source !== frame.src) pictures[i] = picture(frame.src);
  });
  if (next.result && !pictures[next.frames.length]) {
    pictures[next.frames.length] = picture(next.result);
  }
  if (follow) at = positions();
  refresh();
  if (first && next.result && props.shows_itself) showItself();
}

const still = window.matchMedia("(prefers-reduced-motion: reduce)");

// On a phone the images are far below the button that starts them.
function comeIntoView() {
  const box = element.getBoundingClientRect();
  if (!element.offsetParent || (box.top >= 0 && box.top < 0.6 * window.innerHeight)) return;
  element.scrollIntoView({ block: "start", behavior: still.matches ? "auto" : "smooth" });
}

// The first result plays once by itself, unless the visitor is busy or wants no motion.
let touched = false;
for (const kind of ["pointerdown", "keydown", "wheel", "touchstart"]) {
  window.addEventListener(kind, () => { touched = true; }, { once: true, capture: true, passive: true });
}
function showItself() {
  const shown = run;
  setTimeout(() => {
    if (!touched && !still.matches && run === shown && !timer && element.offsetParent) play();
  }, 1200);
}

// A run that stopped early never gets its result; after a while it counts as over.
let lastNews = 0;
let stopped = null;      // name of the run that Stop has ended; a last step may still come
const live = () => performance.now() - lastNews < 3000;
window.addEventListener("maskgit-stop", ({ detail }) => {
  if (!run || detail !== props.player_id) return;
  stopped = run.run;
  run = { ...run, waiting: 0 };
  refresh();
});

function empty() {
  const stage = q(".mg-stage");
  stage.replaceChildren();
  const note = document.createElement("div");
  note.className = "mg-empty";
  const text = document.createElement("span");
  text.textContent = props.empty_text || "Nothing here yet.";
  note.append(text);
  stage.append(note);
  q(".mg-where").textContent = "";
  q(".mg-cell").replaceChildren();
  q(".mg-below").hidden = q(".mg-transport").hidden = true;
}

function buildStage(next) {
  const stage = q(".mg-stage");
  const columns = next.sheet_columns;
  stage.style.setProperty("--mg-columns", columns);
  stage.style.setProperty("--mg-aspect", `${next.columns} / ${next.rows}`);
  stage.style.setProperty("--mg-width", `${{ 1: 460, 2: 620, 3: 660 }[columns] || 720}px`);
  if (next.count === 4) stage.style.setProperty("--mg-width", "520px");
  stage.replaceChildren();
  next.captions.forEach((caption, i) => {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.dataset.image = i;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", caption);
    const text = document.createElement("figcaption");
    text.textContent = caption;
    text.title = caption;
    figure.append(canvas, text);
    stage.append(figure);
    resizer.observe(canvas);
  });
  q(".mg-below").hidden = q(".mg-transport").hidden = next.num_steps === 0;
  q(".mg-curve").hidden = next.kind === "compare";
}

const resizer = new ResizeObserver(draw);
window.addEventListener("maskgit-codebook", refresh);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
q(".mg-select-label").hidden = !props.selectable;
element.querySelectorAll(".mg-views input").forEach((input) => {
  input.name = `mg-view-${element.id || Math.random().toString(36).slice(2)}`;
});
watch("value", () => takeIn(props.value));
takeIn(props.value);
