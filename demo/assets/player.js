// The player: draws one run on canvases, live and afterwards. It asks the server for nothing: all
// steps are in the log in props.value, which only grows while a run goes on. What is read from it is
// in player_run.js; how the player draws, what it says and how it is moved is in player_draw.js,
// player_words.js, player_moves.js, what ends its last pictures early in player_again.js.

const q = (selector) => element.querySelector(selector);

let log = { text: "", run: null }; // what was read of props.value
let run = null;          // the run drawn now
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

const positions = () => positionsOf(run);
const codebook = () => (window.maskgitCodebooks || {})[run && run.model];
const css = (name) => getComputedStyle(q(".mg")).getPropertyValue(name).trim();

function picture(source) {
  const image = new Image();
  image.onload = draw;
  image.src = image.source = source;
  return image;
}

function reset(next) {
  pictures = [];
  base = next.base ? picture(next.base) : null;
  beginning = next.start ? picture(next.start) : null;
  selected = new Set();
  tellSelection(next);
  at = 0;
  follow = true;
  cursor = null;
  pinned = false;
  stop();
  buildStage(next);
}

function forget() {
  log = { text: "", run: null };
  run = null;
  empty();
}

function takeIn(text) {
  if (!text) return forget();
  const next = readLog(log, text);
  if (next.forget) return run && run.kind !== next.forget ? undefined : forget();
  const { kind, gentle } = next.run;
  // Painting while a run goes on must not take its pictures away.
  if (next.fresh && kind === "preview" && run && run.frames.length && !run.result && live()) return;
  if (next.fresh && gentle && run && run.kind !== kind) return;
  const first = !run;
  log = next;
  run = next.run;
  if (next.fresh) reset(run);
  if (next.fresh && kind !== "preview" && kind !== "tour" && !run.result) comeIntoView();
  if (kind !== "preview") lastNews = performance.now();
  // Steps that came too fast to be decoded get their picture when the run is over.
  run.frames.forEach((frame, i) => {
    if (!pictures[i] || pictures[i].source !== frame.src) pictures[i] = picture(frame.src);
  });
  if (run.result && pictures.length === run.frames.length) pictures.push(picture(run.result));
  if (follow) at = positions();
  refresh();
  if (first && run.result && props.shows_itself) showItself();
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
  run.waiting = 0;
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
