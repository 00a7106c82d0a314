// The player: draws one run (see demo/frames.py) on canvases, live and afterwards. It asks the
// server for nothing: all steps are in props.value, which only grows while a run goes on.

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
  image.src = source;
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
  if (!next || !Array.isArray(next.frames)) {
    run = null;
    empty();
    return;
  }
  // Painting while a run goes on must not take its pictures away.
  if (next.kind === "preview" && run && run.frames.length && !run.result && live()) return;
  const fresh = !run || run.run !== next.run || next.frames.length < built;
  if (fresh) reset(next);
  run = next;
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
  if (next.result && !pictures[next.frames.length]) {
    pictures[next.frames.length] = picture(next.result);
  }
  if (follow) at = positions();
  refresh();
}

// A run that stopped early never gets its result; after a while it counts as over.
let lastNews = 0;
const live = () => performance.now() - lastNews < 3000;

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

// ---- drawing -------------------------------------------------------------------------------

const STOPS = [[59, 47, 107], [49, 104, 142], [42, 157, 143], [138, 196, 96], [250, 222, 92]];
function ramp(share) {
  const x = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const i = Math.min(Math.floor(x), STOPS.length - 2);
  const mix = STOPS[i].map((v, c) => Math.round(v + (STOPS[i + 1][c] - v) * (x - i)));
  return `rgb(${mix.join(",")})`;
}

function tokenColour(id) {
  const book = codebook();
  if (!book) return `hsl(${(id * 137.5) % 360} 45% 55%)`;
  if (!book.bytes) book.bytes = Uint8Array.from(atob(book.colours), (c) => c.charCodeAt(0));
  return `rgb(${book.bytes[id * 3]},${book.bytes[id * 3 + 1]},${book.bytes[id * 3 + 2]})`;
}

function drawPatch(canvas, id) {
  const book = codebook();
  canvas.width = canvas.height = 22;
  const context = canvas.getContext("2d");
  context.fillStyle = tokenColour(id);
  context.fillRect(0, 0, 22, 22);
  if (!book) return;
  if (!book.image) {
    book.image = new Image();
    book.image.onload = draw;
    book.image.src = book.atlas;
  }
  if (!book.image.complete || !book.image.naturalWidth) return;
  const x = (id % book.columns) * book.side;
  const y = Math.floor(id / book.columns) * book.side;
  context.drawImage(book.image, x, y, book.side, book.side, 0, 0, 22, 22);
}

const isShown = (cell) => revealedAt[cell] <= at;

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    if (run) drawAll();
  });
}

function drawAll() {
  const colours = { hole: css("--mg-hole"), dot: css("--mg-dot"), line: css("--mg-line") };
  element.querySelectorAll(".mg-stage canvas").forEach((canvas) => drawImage(canvas, colours));
}

function drawImage(canvas, colours) {
  const scale = Math.min(window.devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const index = Number(canvas.dataset.image);
  const first = index * cellsPerImage();
  const edges = { x: [], y: [] };
  for (let c = 0; c <= run.columns; c++) edges.x.push(Math.round((c * width) / run.columns));
  for (let r = 0; r <= run.rows; r++) edges.y.push(Math.round((r * height) / run.rows));
  const box = (cell) => {
    const r = Math.floor((cell - first) / run.columns);
    const c = (cell - first) % run.columns;
    return [edges.x[c], edges.y[r], edges.x[c + 1] - edges.x[c], edges.y[r + 1] - edges.y[r]];
  };

  context.fillStyle = colours.hole;
  context.fillRect(0, 0, width, height);
  const result = at > frames().length;
  if (view === "image") {
    if (base && base.complete && !result) context.drawImage(base, 0, 0, width, height);
    const shown = at > 0 ? pictures[at - 1] : beginning;
    if (shown && shown.complete && shown.naturalWidth) {
      const columns = run.sheet_columns;
      const w = shown.naturalWidth / columns;
      const h = shown.naturalHeight / Math.ceil(run.count / columns);
      const x = (index % columns) * w;
      const y = Math.floor(index / columns) * h;
      if (base && !result) {
        context.save();
        context.beginPath();
        for (let cell = first; cell < first + cellsPerImage(); cell++) {
          if (revealedAt[cell] !== KNOWN) context.rect(...box(cell));
        }
        context.clip();
      }
      context.drawImage(shown, x, y, w, h, 0, 0, width, height);
      if (base && !result) context.restore();
    }
  }
  const gap = view === "image" ? 0 : Math.max(1, Math.round(scale));
  const steps = Math.max(1, run.num_steps - 1);
  for (let cell = first; cell < first + cellsPerImage(); cell++) {
    const [x, y, w, h] = box(cell);
    if (!isShown(cell)) {
      context.fillStyle = colours.hole;
      context.fillRect(x, y, w, h);
      context.fillStyle = colours.dot;
      context.beginPath();
      context.arc(x + w / 2, y + h / 2, Math.max(1, w * 0.11), 0, 7);
      context.fill();
    } else if (view !== "image") {
      const known = revealedAt[cell] === KNOWN;
      if (view === "tokens") context.fillStyle = tokenColour(codes[cell]);
      else if (known) context.fillStyle = colours.dot;
      else if (view === "confidence") context.fillStyle = ramp(sureness[cell] / 1000);
      else context.fillStyle = ramp((revealedAt[cell] - 1) / steps);
      context.fillRect(x, y, w - gap, h - gap);
    }
  }
  const pen = Math.max(1, 1.5 * scale);
  if (q(".mg-outline").checked && !result) {
    context.strokeStyle = colours.line;
    context.lineWidth = pen;
    for (let cell = first; cell < first + cellsPerImage(); cell++) {
      if (revealedAt[cell] !== at || at === 0) continue;
      const [x, y, w, h] = box(cell);
      context.strokeRect(x + pen / 2, y + pen / 2, w - pen, h - pen);
    }
  }
  if (selected.size) {
    for (let cell = first; cell < first + cellsPerImage(); cell++) {
      if (!selected.has(cell)) continue;
      const [x, y, w, h] = box(cell);
      context.fillStyle = "rgb(214 0 106 / 38%)";
      context.fillRect(x, y, w, h);
      context.strokeStyle = "#fff";
      context.lineWidth = scale;
      context.strokeRect(x + scale, y + scale, w - 2 * scale, h - 2 * scale);
    }
  }
  if (cursor !== null && cursor >= first && cursor < first + cellsPerImage()) {
    const [x, y, w, h] = box(cursor);
    context.lineWidth = 2 * scale;
    context.strokeStyle = "#fff";
    context.strokeRect(x - scale, y - scale, w + 2 * scale, h + 2 * scale);
    context.lineWidth = scale;
    context.strokeStyle = "#111";
    context.strokeRect(x - 2 * scale, y - 2 * scale, w + 4 * scale, h + 4 * scale);
  }
}

// ---- words around the pictures -----------------------------------------------------------------

function where() {
  const all = run.num_steps;
  if (run.kind === "preview") return "";
  if (at > frames().length) return run.seconds ? `Result, ${run.seconds} s` : "Result";
  if (at === 0) return run.waiting ? `Place ${run.waiting} in line` : "Start";
  return `Step ${at} of ${all}`;
}

function refresh() {
  if (!run) return;
  const scrub = q(".mg-scrub");
  scrub.max = Math.max(positions(), run.num_steps);
  scrub.value = at;
  scrub.setAttribute("aria-valuetext", where());
  q(".mg-where").textContent = where();
  element.querySelectorAll(".mg-stage figcaption").forEach((text, i) => {
    if (text.textContent !== run.captions[i]) text.textContent = text.title = run.captions[i];
  });
  element.dataset.at = at;
  element.dataset.frames = frames().length;
  element.dataset.done = run.result ? "yes" : "no";
  legend();
  curve();
  details();
  draw();
}

function legend() {
  const box = q(".mg-legend");
  box.hidden = view !== "confidence" && view !== "order";
  if (box.hidden) return;
  const stops = STOPS.map((stop) => `rgb(${stop.join(",")})`).join(",");
  q(".mg-scale").style.background = `linear-gradient(90deg, ${stops})`;
  const order = view === "order";
  q(".mg-low").textContent = order ? "Decided first" : "Unsure, 0 %";
  q(".mg-high").textContent = order ? `Decided last, step ${run.num_steps}` : "Sure, 100 %";
}

const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function curve() {
  const plan = run.plan;
  const last = plan.length - 1;
  const top = Math.max(plan[0], 0.01);
  const x = (i) => 30 + (200 * i) / Math.max(1, last);
  const y = (share) => 8 + 70 * (1 - share / top);
  const shown = Math.min(at, last);
  const percent = (share) => `${Math.round(share * 100)} %`;
  const parts = [
    svg("path", { class: "mg-axis", d: "M30 8V78H230" }),
    svg("text", { x: 26, y: 11, "text-anchor": "end" }, percent(plan[0])),
    svg("text", { x: 26, y: 81, "text-anchor": "end" }, "0 %"),
    svg("text", { x: 30, y: 92 }, "start"),
    svg("text", { x: 230, y: 92, "text-anchor": "end" }, `step ${last}`),
    svg("polyline", { class: "mg-plan", points: plan.map((s, i) => `${x(i)},${y(s)}`).join(" ") }),
  ];
  if (last <= 32) {
    plan.forEach((s, i) => {
      const done = i <= shown ? " mg-done" : "";
      parts.push(svg("circle", { class: "mg-point" + done, cx: x(i), cy: y(s), r: 2.2 }));
    });
  }
  parts.push(svg("circle", { class: "mg-now", cx: x(shown), cy: y(plan[shown]), r: 5 }));
  q(".mg-curve svg").replaceChildren(...parts);
  q(".mg-curve figcaption").textContent = `Still masked: ${percent(plan[shown])}`;
}

function line(...parts) {
  const p = document.createElement("p");
  parts.forEach((part) => {
    if (typeof part === "string") p.append(part);
    else {
      const strong = document.createElement("strong");
      strong.textContent = part.strong;
      p.append(strong);
    }
  });
  return p;
}

function details() {
  const panel = q(".mg-cell");
  if (cursor === null) {
    panel.replaceChildren(line("Point at a cell, or tap it, to see its token and what else it could have been."));
    return;
  }
  const n = cellsPerImage();
  const image = Math.floor(cursor / n);
  const row = Math.floor((cursor % n) / run.columns) + 1;
  const column = ((cursor % n) % run.columns) + 1;
  const place = `${run.count > 1 ? `Image ${image + 1}, row` : "Row"} ${row}, column ${column}`;
  if (!isShown(cursor)) {
    panel.replaceChildren(line({ strong: place }), line("Still masked at this step."));
    return;
  }
  const id = codes[cursor];
  if (revealedAt[cursor] === KNOWN) {
    panel.replaceChildren(line({ strong: place }), line(`Token ${id}, from the photo. It never changes.`));
    return;
  }
  const sure = sureness[cursor] < 0 ? "" : ` with ${percentOf(sureness[cursor])} confidence`;
  const parts = [
    line({ strong: place }),
    line("Token ", { strong: String(id) }, `, decided in step ${revealedAt[cursor]} of ${run.num_steps}${sure}.`),
  ];
  if (options[cursor]) {
    const list = document.createElement("ol");
    const [ids, shares] = options[cursor];
    const most = Math.max(...shares, 1);
    ids.forEach((option, i) => {
      const item = document.createElement("li");
      if (option === id) item.className = "mg-taken";
      const patch = document.createElement("canvas");
      drawPatch(patch, option);
      const name = document.createElement("span");
      name.textContent = option;
      const bar = document.createElement("span");
      const fill = document.createElement("b");
      fill.style.width = `${(100 * shares[i]) / most}%`;
      bar.append(fill);
      const share = document.createElement("span");
      share.textContent = percentOf(shares[i]);
      item.append(patch, name, bar, share);
      list.append(item);
    });
    parts.push(line("Likeliest codes at that moment:"), list);
  }
  panel.replaceChildren(...parts);
}

const percentOf = (mille) => (mille < 10 ? `${(mille / 10).toFixed(1)} %` : `${Math.round(mille / 10)} %`);

// ---- moving through the steps --------------------------------------------------------------------

function go(position) {
  if (!run) return;
  at = Math.max(0, Math.min(positions(), position));
  follow = at === positions();
  refresh();
}

const PLAY = "M7 5v14l12-7z";
const PAUSE = "M7 5h4v14H7zM13 5h4v14h-4z";
function stop() {
  clearInterval(timer);
  timer = null;
  setPlayButton();
}
function setPlayButton() {
  const button = q(".mg-play");
  button.setAttribute("aria-label", timer ? "Pause" : "Play");
  button.querySelector("path").setAttribute("d", timer ? PAUSE : PLAY);
}
function play() {
  if (!run) return;
  if (timer) return stop();
  if (at >= positions()) at = 0;
  follow = false;
  const step = () => {
    if (at >= positions()) {
      if (run.result) return stop();
      return;
    }
    at += 1;
    refresh();
  };
  timer = setInterval(step, 450 / Number(q(".mg-speed").value));
  setPlayButton();
  refresh();
}

function cellAt(event) {
  const canvas = event.target.closest && event.target.closest(".mg-stage canvas");
  if (!canvas || !run) return null;
  const rect = canvas.getBoundingClientRect();
  const c = Math.floor(((event.clientX - rect.left) / rect.width) * run.columns);
  const r = Math.floor(((event.clientY - rect.top) / rect.height) * run.rows);
  if (c < 0 || r < 0 || c >= run.columns || r >= run.rows) return null;
  return Number(canvas.dataset.image) * cellsPerImage() + r * run.columns + c;
}

// ---- marking cells by hand: the page listens for the event and offers to decide them again -----

const picks = () => q(".mg-select").checked;
function mark(cell, on) {
  if (cell === null) return;
  if (on) selected.add(cell);
  else selected.delete(cell);
  cursor = cell;
}
function tellSelection(of) {
  const detail = { player: props.player_id, run: of.run, cells: [...selected] };
  window.maskgitSelections = { ...window.maskgitSelections, [detail.player]: detail };
  window.dispatchEvent(new CustomEvent("maskgit-selection", { detail }));
}
element.addEventListener("pointerdown", (event) => {
  const cell = cellAt(event);
  if (cell === null || !picks() || event.button > 0) return;
  event.preventDefault();
  selecting = !selected.has(cell);
  mark(cell, selecting);
  refresh();
});
document.addEventListener("pointerup", () => {
  if (selecting === null) return;
  selecting = null;
  if (run) tellSelection(run);
});

element.addEventListener("pointermove", (event) => {
  if (selecting !== null) {
    const under = document.elementFromPoint(event.clientX, event.clientY);
    mark(cellAt({ target: under || event.target, clientX: event.clientX, clientY: event.clientY }), selecting);
    refresh();
    return;
  }
  if (pinned || event.pointerType === "touch") return;
  const cell = cellAt(event);
  if (cell === cursor || (cell === null && inspecting)) return;
  cursor = cell;
  refresh();
});
element.addEventListener("pointerleave", () => {
  if (pinned || inspecting || cursor === null) return;
  cursor = null;
  refresh();
});
element.addEventListener("click", (event) => {
  const cell = cellAt(event);
  if (cell !== null && picks()) return;
  if (cell !== null) {
    pinned = !(pinned && cursor === cell);
    cursor = cell;
    refresh();
    return;
  }
  const button = event.target.closest && event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("mg-play")) play();
  else if (button.classList.contains("mg-prev")) { stop(); go(at - 1); }
  else if (button.classList.contains("mg-next")) { stop(); go(at + 1); }
});
element.addEventListener("input", (event) => {
  if (event.target.classList.contains("mg-scrub")) {
    stop();
    go(Number(event.target.value));
  }
});
element.addEventListener("change", (event) => {
  if (event.target.type === "radio") {
    view = event.target.value;
    refresh();
  } else if (event.target.classList.contains("mg-select")) {
    q(".mg-stage").classList.toggle("mg-picking", picks());
    if (!picks()) {
      selected = new Set();
      if (run) tellSelection(run);
    }
    refresh();
  } else if (event.target.classList.contains("mg-outline")) {
    draw();
  } else if (event.target.classList.contains("mg-speed") && timer) {
    stop();
    play();
  }
});

function moveCursor(key) {
  const n = cellsPerImage();
  let image = Math.floor(cursor / n);
  let row = Math.floor((cursor % n) / run.columns);
  let column = (cursor % n) % run.columns;
  if (key === "ArrowLeft") column -= 1;
  if (key === "ArrowRight") column += 1;
  if (key === "ArrowUp") row -= 1;
  if (key === "ArrowDown") row += 1;
  if (column < 0 && image > 0) { image -= 1; column = run.columns - 1; }
  if (column >= run.columns && image < run.count - 1) { image += 1; column = 0; }
  column = Math.max(0, Math.min(run.columns - 1, column));
  row = Math.max(0, Math.min(run.rows - 1, row));
  cursor = image * n + row * run.columns + column;
}

// The keys work from anywhere on the page that takes no text, for the player that is in view.
function onKey(event) {
  if (!element.isConnected) return document.removeEventListener("keydown", onKey);
  if (!run || !element.offsetParent || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  const inside = element.contains(target);
  if (!inside && target !== document.body) return;
  if (target.closest && target.closest("input[type=radio], select, textarea, [contenteditable]")) return;
  const onStage = target === q(".mg-stage");
  if (onStage && event.key === "Enter") {
    inspecting = !inspecting;
    cursor = inspecting ? cursor || 0 : null;
    pinned = false;
  } else if (inspecting && event.key === "Escape") {
    inspecting = false;
    cursor = null;
  } else if (inspecting && onStage && picks() && event.key === " ") {
    mark(cursor, !selected.has(cursor));
    tellSelection(run);
  } else if (inspecting && onStage && event.key.startsWith("Arrow")) {
    moveCursor(event.key);
  } else if (event.key === " " && !(target.closest && target.closest("button, input[type=checkbox]"))) {
    play();
  } else if (event.key === "ArrowLeft") {
    stop();
    go(at - 1);
  } else if (event.key === "ArrowRight") {
    stop();
    go(at + 1);
  } else if (event.key === "Home") {
    stop();
    go(0);
  } else if (event.key === "End") {
    stop();
    go(positions());
  } else {
    return;
  }
  event.preventDefault();
  refresh();
}
document.addEventListener("keydown", onKey);

const resizer = new ResizeObserver(draw);
window.addEventListener("maskgit-codebook", refresh);
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
q(".mg-select-label").hidden = !props.selectable;
element.querySelectorAll(".mg-views input").forEach((input) => {
  input.name = `mg-view-${element.id || Math.random().toString(36).slice(2)}`;
});
watch("value", () => takeIn(props.value));
takeIn(props.value);
