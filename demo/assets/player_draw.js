// How the player draws the images of its run. Part of player.js.

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

const isShown = (cell) => run.revealedAt[cell] <= at;

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
  const first = index * cellsOf(run);
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
  const result = at > run.frames.length;
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
        for (let cell = first; cell < first + cellsOf(run); cell++) {
          if (run.revealedAt[cell] !== KNOWN) context.rect(...box(cell));
        }
        context.clip();
      }
      context.drawImage(shown, x, y, w, h, 0, 0, width, height);
      if (base && !result) context.restore();
    }
  }
  const gap = view === "image" ? 0 : Math.max(1, Math.round(scale));
  const steps = Math.max(1, run.num_steps - 1);
  for (let cell = first; cell < first + cellsOf(run); cell++) {
    const [x, y, w, h] = box(cell);
    if (!isShown(cell)) {
      context.fillStyle = colours.hole;
      context.fillRect(x, y, w, h);
      context.fillStyle = colours.dot;
      context.beginPath();
      context.arc(x + w / 2, y + h / 2, Math.max(1, w * 0.11), 0, 7);
      context.fill();
    } else if (view !== "image") {
      const known = run.revealedAt[cell] === KNOWN;
      if (view === "tokens") context.fillStyle = tokenColour(run.codes[cell]);
      else if (known) context.fillStyle = colours.dot;
      else if (view === "confidence") context.fillStyle = ramp(run.sureness[cell] / 1000);
      else context.fillStyle = ramp((run.revealedAt[cell] - 1) / steps);
      context.fillRect(x, y, w - gap, h - gap);
    }
  }
  const pen = Math.max(1, 1.5 * scale);
  if (q(".mg-outline").checked && !result) {
    context.strokeStyle = colours.line;
    context.lineWidth = pen;
    for (let cell = first; cell < first + cellsOf(run); cell++) {
      if (run.revealedAt[cell] !== at || at === 0) continue;
      const [x, y, w, h] = box(cell);
      context.strokeRect(x + pen / 2, y + pen / 2, w - pen, h - pen);
    }
  }
  if (selected.size) {
    for (let cell = first; cell < first + cellsOf(run); cell++) {
      if (!selected.has(cell)) continue;
      const [x, y, w, h] = box(cell);
      context.fillStyle = "rgb(214 0 106 / 38%)";
      context.fillRect(x, y, w, h);
      context.strokeStyle = "#fff";
      context.lineWidth = scale;
      context.strokeRect(x + scale, y + scale, w - 2 * scale, h - 2 * scale);
    }
  }
  if (cursor !== null && cursor >= first && cursor < first + cellsOf(run)) {
    const [x, y, w, h] = box(cursor);
    context.lineWidth = 2 * scale;
    context.strokeStyle = "#fff";
    context.strokeRect(x - scale, y - scale, w + 2 * scale, h + 2 * scale);
    context.lineWidth = scale;
    context.strokeStyle = "#111";
    context.strokeRect(x - 2 * scale, y - 2 * scale, w + 4 * scale, h + 4 * scale);
  }
}
