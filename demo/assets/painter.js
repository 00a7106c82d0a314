// Shows a photo and lets the visitor paint a mask over it. The server sends
// {photo: data URL, key, framed}; this sends back {key, mask: data URL of white on black, frame} or
// the same with {incoming: path of a pasted or dropped file}. The frame is in painter_frame.js, where
// it may be in painter_geometry.js.

const q = (selector) => element.querySelector(selector);
const MOST_UNDO = 30;
const TINT = [214, 0, 106];

let photo = null;      // Image
let key = null;        // names the photo; the mask belongs to it
let mask = null;       // offscreen canvas of the photo's shown size: white where painted
let past = [];
let future = [];
let tool = "brush";    // brush, erase or frame
let last = null;       // last point of the stroke, in mask pixels
let at = null;         // where the brush is, in mask pixels
let reporting = null;

const radius = () => Math.max(1, (Number(q(".pt-size").value) / 200) * Math.min(mask.width, mask.height));

function takeIn(value) {
  if (!value || !value.photo) return;
  const image = new Image();
  image.onload = () => {
    const before = photo;
    photo = image;
    key = value.key;
    mask = document.createElement("canvas");
    mask.width = image.naturalWidth;
    mask.height = image.naturalHeight;
    past = [];
    future = [];
    at = null;
    forgetFrame(value.framed);
    layOut();
    if (before) changed();
    else send();
  };
  image.src = value.photo;
}

function layOut() {
  q(".pt-note").hidden = Boolean(photo);
  q(".pt-note").style.display = photo ? "none" : "";
  q(".pt-sheet").style.display = photo ? "" : "none";
  if (!photo) return;
  const room = q(".pt-stage").clientWidth || 400;
  const most = Math.min(560, Math.max(260, window.innerHeight * 0.62));
  const scale = Math.min(room / mask.width, most / mask.height);
  const width = Math.max(1, Math.round(mask.width * scale));
  const height = Math.max(1, Math.round(mask.height * scale));
  const dense = Math.min(window.devicePixelRatio || 1, 2);
  for (const canvas of [q(".pt-photo"), q(".pt-mask")]) {
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
  }
  const context = q(".pt-photo").getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, 0, 0, q(".pt-photo").width, q(".pt-photo").height);
  draw();
}

function draw() {
  if (!mask) return;
  const canvas = q(".pt-mask");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.globalAlpha = 0.55;
  context.drawImage(mask, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  context.globalCompositeOperation = "source-in";
  context.fillStyle = `rgb(${TINT.join(",")})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "source-over";
  drawFrame(context, canvas.width / mask.width);
  if (at && tool !== "frame") {
    const scale = canvas.width / mask.width;
    context.beginPath();
    context.arc(at[0] * scale, at[1] * scale, radius() * scale, 0, 7);
    context.lineWidth = 3;
    context.strokeStyle = "#fff";
    context.stroke();
    context.lineWidth = 1.5;
    context.strokeStyle = "#111";
    context.stroke();
  }
  q(".pt-undo").disabled = past.length === 0;
  q(".pt-redo").disabled = future.length === 0;
}

// ---- the mask ---------------------------------------------------------------------------------

const copyOf = () => mask.getContext("2d").getImageData(0, 0, mask.width, mask.height);

function remember() {
  past.push(copyOf());
  if (past.length > MOST_UNDO) past.shift();
  future = [];
}

function travel(from, to) {
  if (!mask || from.length === 0) return;
  to.push(copyOf());
  mask.getContext("2d").putImageData(from.pop(), 0, 0);
  changed();
}

function stroke(from, to) {
  const context = mask.getContext("2d");
  context.globalCompositeOperation = tool === "erase" ? "destination-out" : "source-over";
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineCap = "round";
  context.lineWidth = 2 * radius();
  context.beginPath();
  context.moveTo(from[0], from[1]);
  context.lineTo(to[0] + 0.01, to[1]);
  context.stroke();
  context.globalCompositeOperation = "source-over";
}

function fill(kind) {
  if (!mask) return;
  remember();
  const context = mask.getContext("2d");
  context.fillStyle = "#fff";
  if (kind === "clear") context.clearRect(0, 0, mask.width, mask.height);
  else {
    context.globalCompositeOperation = kind === "invert" ? "xor" : "source-over";
    context.fillRect(0, 0, mask.width, mask.height);
    context.globalCompositeOperation = "source-over";
  }
  changed();
}

function changed() {
  draw();
  send();
  clearTimeout(reporting);
  reporting = setTimeout(() => trigger("change"), 300);
}

function send(more) {
  const flat = document.createElement("canvas");
  flat.width = mask.width;
  flat.height = mask.height;
  const context = flat.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, flat.width, flat.height);
  context.drawImage(mask, 0, 0);
  const pixels = copyOf().data;
  let painted = 0;
  let outside = 0;
  for (let i = 3; i < pixels.length; i += 4) {
    if (pixels[i] <= 127) continue;
    painted += 1;
    const cell = (i - 3) / 4;
    if (frame && !holds(frame, cell % mask.width, Math.floor(cell / mask.width))) outside += 1;
  }
  q(".pt-share").textContent = paintedText(painted, outside, mask.width * mask.height);
  const shares = frame && sharesOf(frame, mask);
  props.value = { key, mask: flat.toDataURL("image/png"), frame: shares, ...more };
}

// ---- pointer and keys ----------------------------------------------------------------------------

function pointOf(event) {
  const box = q(".pt-mask").getBoundingClientRect();
  return [
    ((event.clientX - box.left) / box.width) * mask.width,
    ((event.clientY - box.top) / box.height) * mask.height,
  ];
}

const onMask = (event) => event.target.classList && event.target.classList.contains("pt-mask");

element.addEventListener("pointerdown", (event) => {
  if (!mask || !onMask(event) || event.button > 0) return;
  if (!event.isPrimary) return giveUp();
  event.target.setPointerCapture(event.pointerId);
  if (tool === "frame") return grabFrame(pointOf(event));
  remember();
  last = at = pointOf(event);
  stroke(last, last);
  draw();
});
element.addEventListener("pointermove", (event) => {
  if (!mask || !onMask(event) || !event.isPrimary) return;
  if (tool === "frame") return dragFrame(pointOf(event));
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const each of events.length ? events : [event]) {
    at = pointOf(each);
    if (last) {
      stroke(last, at);
      last = at;
    }
  }
  draw();
});
// A second finger: this is no stroke but a pinch.
function giveUp() {
  if (!last) return;
  last = at = null;
  mask.getContext("2d").putImageData(past.pop(), 0, 0);
  draw();
}
const finish = (event) => {
  if (!event.isPrimary) return;
  if (grip) return dropFrame();
  if (!last) return;
  last = null;
  changed();
};
element.addEventListener("pointerup", finish);
element.addEventListener("pointercancel", finish);
element.addEventListener("pointerout", (event) => {
  if (!mask || !onMask(event) || last) return;
  at = null;
  draw();
});

element.addEventListener("keydown", (event) => {
  if (!mask || !onMask(event) || event.altKey) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() !== "z") return;
  const step = Math.max(2, radius() / 2);
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  const size = q(".pt-size");
  if (tool === "frame" && (event.key in moves || event.key === "+" || event.key === "-")) {
    nudgeFrame(moves[event.key], event.key === "+" ? 1 : -1);
  } else if (event.key in moves) {
    at = at || [mask.width / 2, mask.height / 2];
    at = [
      Math.max(0, Math.min(mask.width, at[0] + moves[event.key][0])),
      Math.max(0, Math.min(mask.height, at[1] + moves[event.key][1])),
    ];
    draw();
  } else if (event.key === " " && tool !== "frame") {
    at = at || [mask.width / 2, mask.height / 2];
    remember();
    stroke(at, at);
    changed();
  } else if (event.key === "+" || event.key === "-") {
    size.value = Number(size.value) + (event.key === "+" ? 4 : -4);
    draw();
  } else if (event.key.toLowerCase() === "z") {
    if (event.shiftKey) travel(future, past);
    else travel(past, future);
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
});

element.addEventListener("click", (event) => {
  const button = event.target.closest && event.target.closest("button");
  if (!button) return;
  const is = (name) => button.classList.contains(name);
  if (is("pt-brush")) take("brush");
  else if (is("pt-erase")) take("erase");
  else if (is("pt-move")) take("frame");
  else if (is("pt-auto")) freeFrame();
  else if (is("pt-undo")) travel(past, future);
  else if (is("pt-redo")) travel(future, past);
  else if (is("pt-clear")) fill("clear");
  else if (is("pt-invert")) fill("invert");
  else if (is("pt-all")) fill("all");
});
element.addEventListener("input", (event) => {
  if (event.target.classList.contains("pt-size")) draw();
});

// ---- photos that are pasted or dropped -----------------------------------------------------------

async function bring(file) {
  let path;
  try {
    ({ path } = await upload(file));
  } catch {
    hint("This file could not be sent. It may be too large: at most 25 MB.");
    return;
  }
  hint();
  if (mask) send({ incoming: path });
  else props.value = { key, mask: null, incoming: path };
  trigger("upload");
}

element.addEventListener("dragover", (event) => {
  event.preventDefault();
  q(".pt-stage").classList.add("pt-over");
});
element.addEventListener("dragleave", () => q(".pt-stage").classList.remove("pt-over"));
// A recipe that is dropped here is taken before it comes this far.
document.addEventListener("drop", () => q(".pt-stage").classList.remove("pt-over"), { capture: true });
element.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) bring(event.dataTransfer.files[0]);
});
function onPaste(event) {
  if (!element.isConnected) return document.removeEventListener("paste", onPaste);
  if (!element.offsetParent) return;
  const target = event.target;
  if (target.closest && target.closest("input, textarea, [contenteditable]")) return;
  const files = event.clipboardData ? event.clipboardData.files : [];
  if (files.length) bring(files[0]);
}
document.addEventListener("paste", onPaste);

let lastRoom = 0;
new ResizeObserver(() => {
  const room = q(".pt-stage").clientWidth;
  if (room === lastRoom) return;
  lastRoom = room;
  layOut();
}).observe(q(".pt-stage"));
watch("value", () => takeIn(props.value));
watch("frame", () => {
  shownFrame = props.frame;
  draw();
});
layOut();
takeIn(props.value);
