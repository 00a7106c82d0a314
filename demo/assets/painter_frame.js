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

const shortSide = () => Math.min(mask.width, mask.height);
const leastSide = () => Math.max(24, 0.1 * shortSide());

function forgetFrame(wanted) {
  framed = Boolean(wanted);
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
  if (frame) return [frame.x, frame.y, frame.x + frame.side, frame.y + frame.side];
  if (shownFrame) return shownFrame.map((share, i) => share * (i % 2 ? mask.height : mask.width));
  if (tool !== "frame") return null;
  const side = shortSide();
  return [(mask.width - side) / 2, (mask.height - side) / 2, (mask.width + side) / 2, (mask.height + side) / 2];
}

function inFrame(x, y) {
  if (!frame) return true;
  return x >= frame.x && y >= frame.y && x < frame.x + frame.side && y < frame.y + frame.side;
}

// What the server reads: left, top, and the side as a share of the shorter side of the photo.
function frameShares() {
  if (!frame) return null;
  return [frame.x / mask.width, frame.y / mask.height, frame.side / shortSide()];
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
  if (frame) return;
  const [left, top, right, bottom] = frameBox();
  const side = Math.min(right - left, bottom - top, shortSide());
  frame = { x: (left + right - side) / 2, y: (top + bottom - side) / 2, side };
  place(frame.x, frame.y);
}

function place(x, y) {
  frame.x = Math.max(0, Math.min(mask.width - frame.side, x));
  frame.y = Math.max(0, Math.min(mask.height - frame.side, y));
}

function grabFrame([x, y]) {
  if (!framed) return;
  ownFrame();
  const near = (GRIP * mask.width) / q(".pt-mask").clientWidth;
  const right = frame.x + frame.side;
  const bottom = frame.y + frame.side;
  const touches = (a, b) => Math.abs(a - b) <= near;
  const atSide = touches(x, frame.x) ? -1 : touches(x, right) ? 1 : 0;
  const atEnd = touches(y, frame.y) ? -1 : touches(y, bottom) ? 1 : 0;
  if (atSide && atEnd) {
    // The corner across stays where it is.
    grip = { atSide, atEnd, x: atSide < 0 ? right : frame.x, y: atEnd < 0 ? bottom : frame.y };
  } else {
    if (!inFrame(x, y)) place(x - frame.side / 2, y - frame.side / 2);
    grip = { dx: x - frame.x, dy: y - frame.y };
  }
  draw();
}

function dragFrame([x, y]) {
  if (!grip) return;
  if (grip.atSide) {
    const roomX = grip.atSide < 0 ? grip.x : mask.width - grip.x;
    const roomY = grip.atEnd < 0 ? grip.y : mask.height - grip.y;
    const wanted = Math.max(grip.atSide * (x - grip.x), grip.atEnd * (y - grip.y));
    frame.side = Math.max(leastSide(), Math.min(wanted, roomX, roomY, shortSide()));
    place(
      grip.atSide < 0 ? grip.x - frame.side : grip.x,
      grip.atEnd < 0 ? grip.y - frame.side : grip.y,
    );
  } else {
    place(x - grip.dx, y - grip.dy);
  }
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
    place(frame.x + Math.sign(move[0]) * step, frame.y + Math.sign(move[1]) * step);
  } else {
    const grown = Math.max(leastSide(), Math.min(shortSide(), frame.side * (larger > 0 ? 1.1 : 1 / 1.1)));
    const middle = [frame.x + frame.side / 2, frame.y + frame.side / 2];
    frame.side = grown;
    place(middle[0] - grown / 2, middle[1] - grown / 2);
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
