// The frame: the square of the photo that the model sees. It follows what is painted (the server
// says where it is, in props.frame) until the visitor moves it. Part of painter.js.

const HINT =
  "The frame is the part that the model sees. It follows what you paint until you move it. " +
  "A small frame gives finer detail, a large one shows the model more of the scene. What is " +
  "painted outside stays as it is.";
const GRIP = 14;        // how near a corner counts as the corner, in pixels of the screen

let framed = false;     // whether the photo is more than the model sees at once
let frame = null;       // {x, y, side} in mask pixels, once the visitor has moved it
let shownFrame = null;  // [left, top, right, bottom] as shares: the automatic one
let grip = null;        // while the pointer is down: how the frame changes

function forgetFrame(needed) {
  framed = Boolean(needed);
  frame = null;
  shownFrame = null;
  q(".pt-move").hidden = !framed;
  if (tool === "frame") take("brush");
  toolsOfFrame();
}

function take(next) {
  tool = next;
  for (const [name, of] of [["brush", "brush"], ["erase", "erase"], ["move", "frame"]]) {
    q(`.pt-${name}`).setAttribute("aria-pressed", String(tool === of));
  }
  q(".pt-mask").classList.toggle("pt-framing", tool === "frame");
  toolsOfFrame();
  draw();
}

function hint(text) {
  q(".pt-hint").textContent = text || "";
  q(".pt-hint").hidden = !text;
}

function toolsOfFrame() {
  q(".pt-auto").hidden = !frame;
  hint(tool === "frame" ? HINT : "");
}

// [left, top, right, bottom] in mask pixels of what is shown; null where there is nothing to show.
function frameBox() {
  if (!framed || !mask) return null;
  if (frame) return boxOf(frame);
  if (shownFrame) return shownFrame.map((share, i) => share * (i % 2 ? mask.height : mask.width));
  return tool === "frame" ? middleBox(mask) : null;
}

function drawFrame(context, scale) {
  const box = frameBox();
  if (!box) return;
  const [left, top, right, bottom] = box.map((value) => value * scale);
  const { width, height } = context.canvas;
  context.save();
  context.fillStyle = "rgb(15 18 25 / 45%)";
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(left, top, right - left, bottom - top);
  context.fill("evenodd");
  const pen = Math.max(1, width / 400);
  for (const [colour, dashes] of [["#111", []], ["#fff", [6 * pen, 5 * pen]]]) {
    context.setLineDash(dashes);
    context.lineWidth = 1.5 * pen;
    context.strokeStyle = colour;
    context.strokeRect(left + pen, top + pen, right - left - 2 * pen, bottom - top - 2 * pen);
  }
  if (tool === "frame") {
    context.setLineDash([]);
    const dot = 5 * pen;
    for (const x of [left, right]) {
      for (const y of [top, bottom]) {
        const at = [Math.max(dot, Math.min(width - dot, x)), Math.max(dot, Math.min(height - dot, y))];
        context.fillStyle = "#fff";
        context.strokeStyle = "#111";
        context.fillRect(at[0] - dot, at[1] - dot, 2 * dot, 2 * dot);
        context.strokeRect(at[0] - dot, at[1] - dot, 2 * dot, 2 * dot);
      }
    }
  }
  context.restore();
}

// Takes over the automatic frame, as far as it lies on the photo.
function ownFrame() {
  frame = frame || frameWithin(frameBox(), mask);
}

function grabFrame(point) {
  if (!framed) return;
  ownFrame();
  const near = (GRIP * mask.width) / q(".pt-mask").clientWidth;
  grip = gripOf(frame, point, near);
  if (!grip.atSide && !holds(frame, ...point)) {
    frame = placed(frame, point[0] - frame.side / 2, point[1] - frame.side / 2, mask);
    grip = { dx: point[0] - frame.x, dy: point[1] - frame.y };
  }
  draw();
}

function dragFrame(point) {
  if (!grip) return;
  frame = draggedFrame(frame, grip, point, mask);
  draw();
}

function dropFrame() {
  grip = null;
  toolsOfFrame();
  changed();
}

function nudgeFrame(move, larger) {
  if (!framed) return;
  ownFrame();
  if (move) {
    const step = Math.max(2, frame.side / 16);
    frame = placed(frame, frame.x + Math.sign(move[0]) * step, frame.y + Math.sign(move[1]) * step, mask);
  } else {
    frame = scaledFrame(frame, larger > 0 ? 1.1 : 1 / 1.1, mask);
  }
  toolsOfFrame();
  changed();
}

function freeFrame() {
  frame = null;
  shownFrame = null;
  toolsOfFrame();
  changed();
}
