// Moving through the steps, looking at cells and marking them. Part of player.js.

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
      // Another step may come, unless the run was stopped or nothing came for long.
      const over = run.result || run.run === stopped;
      if (over || performance.now() - lastNews > 30000) stop();
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
  return Number(canvas.dataset.image) * cellsOf(run) + r * run.columns + c;
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
for (const kind of ["pointerup", "pointercancel"]) {
  document.addEventListener(kind, () => {
    if (selecting === null) return;
    selecting = null;
    if (run) tellSelection(run);
  });
}

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
    cursor = movedCell(run, cursor, event.key);
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
