// Where the frame over a photo may be. A frame is {x, y, side} in pixels of the mask, a size is
// {width, height} of it. Nothing of the page is touched here. Part of painter.js.

const shortOf = (size) => Math.min(size.width, size.height);
const leastSideOf = (size) => Math.max(24, 0.1 * shortOf(size));
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// A frame at another place, as far as it stays on the photo.
function placed(frame, x, y, size) {
  return {
    side: frame.side,
    x: clamp(x, 0, size.width - frame.side),
    y: clamp(y, 0, size.height - frame.side),
  };
}

// The largest frame in the middle of a box [left, top, right, bottom] that lies on the photo.
function frameWithin([left, top, right, bottom], size) {
  const side = Math.min(right - left, bottom - top, shortOf(size));
  return placed({ side }, (left + right - side) / 2, (top + bottom - side) / 2, size);
}

// The middle square of the photo as a box.
function middleBox(size) {
  const side = shortOf(size);
  return [(size.width - side) / 2, (size.height - side) / 2, (size.width + side) / 2, (size.height + side) / 2];
}

const boxOf = (frame) => [frame.x, frame.y, frame.x + frame.side, frame.y + frame.side];

function holds(frame, x, y) {
  const [left, top, right, bottom] = boxOf(frame);
  return x >= left && y >= top && x < right && y < bottom;
}

// How a frame changes that is taken hold of: by a corner, the one across then stays where it is, or
// as a whole. `near` is how far from a corner still counts as the corner.
function gripOf(frame, [x, y], near) {
  const [left, top, right, bottom] = boxOf(frame);
  const sideOf = (value, low, high) =>
    Math.abs(value - low) <= near ? -1 : Math.abs(value - high) <= near ? 1 : 0;
  const [atSide, atEnd] = [sideOf(x, left, right), sideOf(y, top, bottom)];
  if (!atSide || !atEnd) return { dx: x - left, dy: y - top };
  return { atSide, atEnd, x: atSide < 0 ? right : left, y: atEnd < 0 ? bottom : top };
}

function draggedFrame(frame, grip, [x, y], size) {
  if (!grip.atSide) return placed(frame, x - grip.dx, y - grip.dy, size);
  const roomX = grip.atSide < 0 ? grip.x : size.width - grip.x;
  const roomY = grip.atEnd < 0 ? grip.y : size.height - grip.y;
  const asked = Math.max(grip.atSide * (x - grip.x), grip.atEnd * (y - grip.y));
  const side = Math.max(leastSideOf(size), Math.min(asked, roomX, roomY, shortOf(size)));
  const left = grip.atSide < 0 ? grip.x - side : grip.x;
  return placed({ side }, left, grip.atEnd < 0 ? grip.y - side : grip.y, size);
}

// A frame that is larger or smaller around the same middle.
function scaledFrame(frame, factor, size) {
  const side = clamp(frame.side * factor, leastSideOf(size), shortOf(size));
  const shift = (frame.side - side) / 2;
  return placed({ side }, frame.x + shift, frame.y + shift, size);
}

// What the server reads: left, top, and the side as a share of the shorter side of the photo.
function sharesOf(frame, size) {
  return [frame.x / size.width, frame.y / size.height, frame.side / shortOf(size)];
}

// How much of a photo is painted, in words.
function paintedText(painted, outside, pixels) {
  if (!painted) return "";
  const percent = (count) => {
    const share = (100 * count) / pixels;
    return `${share < 1 ? "under 1" : Math.round(share)} %`;
  };
  const more = outside ? `, ${percent(outside)} outside the frame` : "";
  return `${percent(painted)} marked${more}`;
}
