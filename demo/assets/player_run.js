// A run as the player knows it, read from its log: lines of JSON, a head and then events, as
// demo/runs/frames.py describes them. Nothing of the page is touched here. Part of player.js.

const MASKED = 32767;
const KNOWN = -1;

// Tables over all cells, filled by the events: `revealedAt` holds the number of the frame from 1,
// KNOWN or MASKED; `codes` the token; `sureness` 0..1000 or -1; `options` [ids, shares] or null.
function newRun(head) {
  const cells = head.count * head.rows * head.columns;
  const run = {
    ...head,
    waiting: 0,
    frames: [],
    result: null,
    seconds: null,
    revealedAt: new Int16Array(cells).fill(MASKED),
    codes: new Int32Array(cells).fill(head.mask_id),
    sureness: new Int16Array(cells).fill(-1),
    options: new Array(cells).fill(null),
  };
  for (let cell = 0; head.known && cell < cells; cell++) {
    const code = head.known[cell % head.known.length];
    if (code === head.mask_id) continue;
    run.codes[cell] = code;
    run.revealedAt[cell] = KNOWN;
  }
  return run;
}

function grow(run, event) {
  if (event.frame) addFrame(run, event.frame);
  else if (event.pictures) {
    for (const [step, source] of Object.entries(event.pictures)) run.frames[step].src = source;
  } else Object.assign(run, event);
}

function addFrame(run, frame) {
  run.waiting = 0;
  run.frames.push(frame);
  const per = frame.per_cell || 0;
  frame.cells.forEach((cell, i) => {
    run.revealedAt[cell] = run.frames.length;
    run.codes[cell] = frame.ids[i];
    run.sureness[cell] = frame.sure[i];
    if (!per) return;
    const part = [i * per, i * per + per];
    run.options[cell] = [frame.alternatives.slice(...part), frame.shares.slice(...part)];
  });
}

// What a log tells beyond what was read of it: {text, run, fresh} or {forget: kind}. A log only
// grows at its end; another one begins a new run, which is then `fresh`.
function readLog(before, text) {
  const goesOn = Boolean(before.run) && text.startsWith(before.text);
  const lines = text.slice(goesOn ? before.text.length : 0).split("\n");
  const events = lines.filter(Boolean).map((entry) => JSON.parse(entry));
  if (!goesOn && events[0].forget) return events[0];
  const run = goesOn ? before.run : newRun(events.shift());
  events.forEach((event) => grow(run, event));
  return { text, run, fresh: !goesOn };
}

const cellsOf = (run) => run.rows * run.columns;
const positionsOf = (run) => run.frames.length + (run.result ? 1 : 0);
const maskedAt = (run, at) => run.revealedAt.reduce((count, when) => count + (when > at), 0);

// Image, row and column of a cell, all from 0.
function placeOf(run, cell) {
  const inside = cell % cellsOf(run);
  return [Math.floor(cell / cellsOf(run)), Math.floor(inside / run.columns), inside % run.columns];
}

// The cell that an arrow key leads to; over the edge of an image to its neighbour.
function movedCell(run, cell, key) {
  let [image, row, column] = placeOf(run, cell);
  if (key === "ArrowLeft") column -= 1;
  if (key === "ArrowRight") column += 1;
  if (key === "ArrowUp") row -= 1;
  if (key === "ArrowDown") row += 1;
  if (column < 0 && image > 0) {
    image -= 1;
    column = run.columns - 1;
  }
  if (column >= run.columns && image < run.count - 1) {
    image += 1;
    column = 0;
  }
  column = Math.max(0, Math.min(run.columns - 1, column));
  row = Math.max(0, Math.min(run.rows - 1, row));
  return image * cellsOf(run) + row * run.columns + column;
}

// ---- words and colours -------------------------------------------------------------------------

const STOPS = [[59, 47, 107], [49, 104, 142], [42, 157, 143], [138, 196, 96], [250, 222, 92]];
const rgb = (colour) => `rgb(${colour.join(",")})`;

function ramp(share) {
  const x = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const i = Math.min(Math.floor(x), STOPS.length - 2);
  return rgb(STOPS[i].map((v, c) => Math.round(v + (STOPS[i + 1][c] - v) * (x - i))));
}

function percentOf(mille) {
  return mille < 10 ? `${(mille / 10).toFixed(1)} %` : `${Math.round(mille / 10)} %`;
}

function whereText(run, at) {
  if (run.kind === "preview") return "";
  if (at > run.frames.length) return run.seconds ? `Result, ${run.seconds} s` : "Result";
  if (at === 0) return run.waiting ? `Place ${run.waiting} in line` : "Start";
  return `Step ${at} of ${run.num_steps}`;
}

// What the step did, in words: how many guesses were kept, and how sure the model was of them.
function storyText(run, at) {
  const open = maskedAt(run, at);
  const cells = (count) => `${count} ${count === 1 ? "cell is" : "cells are"}`;
  if (run.kind === "preview" || (at === 0 && !open)) return "";
  if (at === 0) return `Before the first step ${cells(open)} masked.`;
  if (at > run.frames.length) return "All cells are decided. Press play to see how.";
  const step = run.frames[at - 1];
  const sure = step.sure.filter((value) => value >= 0);
  const range = [Math.min(...sure), Math.max(...sure)].map(percentOf);
  const words = range[0] === range[1] ? range[0] : `${range[0]} to ${range[1]}`;
  const count = step.cells.length;
  return [
    `This step kept ${count} ${count === 1 ? "guess" : "guesses"}`,
    sure.length ? `, of which the model was ${words} sure. ` : ". ",
    open ? `${cells(open)} still masked and will be guessed again.` : "Nothing is left to guess.",
  ].join("");
}

// Title and sentence about a cell, as parts of which the strong ones are {strong: text}.
function cellTexts(run, at, cell) {
  const [image, row, column] = placeOf(run, cell);
  const title = `${run.count > 1 ? `Image ${image + 1}, row` : "Row"} ${row + 1}, column ${column + 1}`;
  if (run.revealedAt[cell] > at) return { title, parts: ["Still masked at this step."] };
  const id = run.codes[cell];
  if (run.revealedAt[cell] === KNOWN) {
    const origin = run.kind === "redo" ? "kept from before" : "from the photo";
    return { title, parts: [`Token ${id}, ${origin}. It never changes.`] };
  }
  // Compared runs can have fewer steps than the longest, which the player counts.
  const all = run.kind === "compare" ? "" : ` of ${run.num_steps}`;
  const sure = run.sureness[cell] < 0 ? "" : ` with ${percentOf(run.sureness[cell])} confidence`;
  const step = `, decided in step ${run.revealedAt[cell]}${all}${sure}.`;
  return { title, parts: ["Token ", { strong: String(id) }, step], options: run.options[cell], id };
}

// Points of the curve of masked shares on a picture of 240 x 96.
function curvePoints(plan) {
  const last = plan.length - 1;
  const top = Math.max(plan[0], 0.01);
  return plan.map((share, i) => [30 + (200 * i) / Math.max(1, last), 8 + 70 * (1 - share / top)]);
}
