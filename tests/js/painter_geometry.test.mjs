import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./scripts.mjs";

const {
  placed, frameWithin, middleBox, boxOf, holds, gripOf, draggedFrame, scaledFrame, sharesOf,
  paintedText, leastSideOf,
} = load(["painter_geometry.js"], [
  "placed", "frameWithin", "middleBox", "boxOf", "holds", "gripOf", "draggedFrame", "scaledFrame",
  "sharesOf", "paintedText", "leastSideOf",
]);

const SIZE = { width: 400, height: 200 };
const FRAME = { x: 100, y: 50, side: 100 };

function onPhoto(frame) {
  const [left, top, right, bottom] = boxOf(frame);
  return left >= 0 && top >= 0 && right <= SIZE.width && bottom <= SIZE.height;
}

test("a frame stays on the photo wherever it is put", () => {
  assert.deepEqual(placed(FRAME, 350, -20, SIZE), { side: 100, x: 300, y: 0 });
  for (let x = -500; x <= 900; x += 70) {
    for (let y = -300; y <= 500; y += 70) assert.ok(onPhoto(placed(FRAME, x, y, SIZE)));
  }
});

test("the automatic frame is taken over as far as it lies on the photo", () => {
  assert.deepEqual(frameWithin([100, 50, 200, 150], SIZE), FRAME);
  const wide = frameWithin([-100, -150, 500, 350], SIZE);
  assert.deepEqual(wide, { side: 200, x: 100, y: 0 });
  assert.deepEqual(middleBox(SIZE), [100, 0, 300, 200]);
});

test("a corner is resized, the middle is moved", () => {
  const corner = gripOf(FRAME, [203, 148], 5);
  assert.deepEqual(corner, { atSide: 1, atEnd: 1, x: 100, y: 50 });
  assert.deepEqual(draggedFrame(FRAME, corner, [240, 160], SIZE), { side: 140, x: 100, y: 50 });
  const across = gripOf(FRAME, [100, 50], 5);
  assert.deepEqual(draggedFrame(FRAME, across, [130, 90], SIZE), { side: 70, x: 130, y: 80 });
  const whole = gripOf(FRAME, [150, 100], 5);
  assert.deepEqual(draggedFrame(FRAME, whole, [170, 90], SIZE), { side: 100, x: 120, y: 40 });
});

test("whatever is dragged, the frame is a square on the photo and not too small", () => {
  for (const start of [[100, 50], [200, 50], [100, 150], [200, 150], [150, 100]]) {
    const grip = gripOf(FRAME, start, 5);
    for (let x = -100; x <= 500; x += 45) {
      for (let y = -100; y <= 300; y += 45) {
        const frame = draggedFrame(FRAME, grip, [x, y], SIZE);
        assert.ok(onPhoto(frame), `${start} to ${x}, ${y}: ${JSON.stringify(frame)}`);
        assert.ok(frame.side >= leastSideOf(SIZE));
      }
    }
  }
});

test("a frame grows around its middle until it meets its bounds", () => {
  assert.deepEqual(scaledFrame(FRAME, 1.2, SIZE), { side: 120, x: 90, y: 40 });
  let frame = FRAME;
  for (let i = 0; i < 50; i++) frame = scaledFrame(frame, 1.1, SIZE);
  assert.equal(frame.side, 200);
  for (let i = 0; i < 50; i++) frame = scaledFrame(frame, 1 / 1.1, SIZE);
  assert.equal(frame.side, leastSideOf(SIZE));
  assert.ok(onPhoto(frame));
});

test("what the server is told", () => {
  assert.deepEqual(sharesOf(FRAME, SIZE), [0.25, 0.25, 0.5]);
  assert.ok(holds(FRAME, 100, 50) && !holds(FRAME, 200, 60) && !holds(FRAME, 99, 60));
});

test("how much is painted, in words", () => {
  assert.equal(paintedText(0, 0, 1000), "");
  assert.equal(paintedText(3, 0, 1000), "under 1 % marked");
  assert.equal(paintedText(250, 0, 1000), "25 % marked");
  assert.equal(paintedText(250, 100, 1000), "25 % marked, 10 % outside the frame");
});
