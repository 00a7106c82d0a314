import assert from "node:assert/strict";
import { test } from "node:test";

import { load } from "./scripts.mjs";

const {
  MASKED, KNOWN, readLog, newRun, grow, movedCell, placeOf, positionsOf, maskedAt, ramp, percentOf,
  whereText, storyText, cellTexts, curvePoints,
} = load(["player_run.js"], [
  "MASKED", "KNOWN", "readLog", "newRun", "grow", "movedCell", "placeOf", "positionsOf", "maskedAt",
  "ramp", "percentOf", "whereText", "storyText", "cellTexts", "curvePoints",
]);

const HEAD = {
  run: "a", kind: "generate", rows: 2, columns: 3, count: 2, mask_id: 9, num_steps: 2,
  plan: [1, 0.5, 0], captions: ["x", "y"], known: null,
};
const frame = (cells, ids, sure) => ({
  frame: {
    src: `data:${cells}`, cells, ids, sure, per_cell: 2,
    alternatives: ids.flatMap((id) => [id, 0]), shares: ids.flatMap(() => [700, 300]),
  },
});
const FIRST = frame([0, 4, 6], [1, 2, 3], [500, 250, -1]);
const SECOND = frame([1, 2, 3, 5, 7, 8, 9, 10, 11], [4, 4, 4, 4, 4, 4, 4, 4, 4], Array(9).fill(5));
const log = (...parts) => parts.map((part) => `${JSON.stringify(part)}\n`).join("");
const NOTHING = { text: "", run: null };

test("a log is read once, however it arrives", () => {
  const parts = [HEAD, { waiting: 2 }, FIRST, SECOND, { result: "r", seconds: 1.5 }];
  const whole = readLog(NOTHING, log(...parts));
  let grown = readLog(NOTHING, log(HEAD));
  for (let i = 1; i <= parts.length; i++) grown = readLog(grown, log(...parts.slice(0, i)));
  assert.deepEqual(grown.run, whole.run);
  assert.equal(whole.run.frames.length, 2);
  assert.equal(whole.run.waiting, 0);
  assert.equal(positionsOf(whole.run), 3);
  assert.ok(whole.fresh && !grown.fresh);
});

test("another log is another run", () => {
  const before = readLog(NOTHING, log(HEAD, FIRST));
  const after = readLog(before, log({ ...HEAD, run: "b" }));
  assert.ok(after.fresh);
  assert.equal(after.run.frames.length, 0);
  assert.deepEqual(readLog(before, log({ forget: "preview" })), { forget: "preview" });
});

test("frames fill the tables", () => {
  const { run } = readLog(NOTHING, log(HEAD, FIRST));
  assert.deepEqual([...run.revealedAt.slice(0, 7)], [1, MASKED, MASKED, MASKED, 1, MASKED, 1]);
  assert.deepEqual([run.codes[4], run.sureness[4], run.codes[5]], [2, 250, 9]);
  assert.deepEqual(run.options[4], [[2, 0], [700, 300]]);
  assert.equal(maskedAt(run, 0), 12);
  assert.equal(maskedAt(run, 1), 9);
});

test("late pictures replace those of their steps", () => {
  const run = newRun(HEAD);
  grow(run, structuredClone(FIRST));
  grow(run, structuredClone(SECOND));
  grow(run, { pictures: { 1: "better" } });
  assert.deepEqual(run.frames.map(({ src }) => src), [FIRST.frame.src, "better"]);
});

test("known cells are those of each image, or of all", () => {
  for (const known of [[1, 9, 9, 9, 9, 2], [1, 9, 9, 9, 9, 2, 1, 9, 9, 9, 9, 2]]) {
    const run = newRun({ ...HEAD, known });
    const places = [...run.revealedAt.entries()].filter(([, when]) => when === KNOWN);
    assert.deepEqual(places.map(([cell]) => cell), [0, 5, 6, 11]);
    assert.equal(run.codes[11], 2);
  }
});

test("arrow keys move over the edge of an image and stop at the last", () => {
  const run = newRun(HEAD);
  assert.deepEqual(placeOf(run, 10), [1, 1, 1]);
  const moves = [
    [0, "ArrowRight", 1], [2, "ArrowRight", 6], [6, "ArrowLeft", 2], [0, "ArrowLeft", 0],
    [1, "ArrowDown", 4], [4, "ArrowDown", 4], [4, "ArrowUp", 1], [11, "ArrowRight", 11],
  ];
  for (const [from, key, to] of moves) assert.equal(movedCell(run, from, key), to, `${from} ${key}`);
});

test("where the player is, in words", () => {
  const run = newRun(HEAD);
  assert.equal(whereText(run, 0), "Start");
  grow(run, { waiting: 3 });
  assert.equal(whereText(run, 0), "Place 3 in line");
  grow(run, structuredClone(FIRST));
  assert.equal(whereText(run, 0), "Start");
  assert.equal(whereText(run, 1), "Step 1 of 2");
  assert.equal(whereText(run, 2), "Result");
  grow(run, { seconds: 2.5 });
  assert.equal(whereText(run, 2), "Result, 2.5 s");
  assert.equal(whereText({ ...run, kind: "preview" }, 0), "");
});

test("what a step did, in words", () => {
  const { run } = readLog(NOTHING, log(HEAD, FIRST, SECOND));
  assert.equal(storyText(run, 0), "Before the first step 12 cells are masked.");
  assert.equal(
    storyText(run, 1),
    "This step kept 3 guesses, of which the model was 25 % to 50 % sure. " +
      "9 cells are still masked and will be guessed again.",
  );
  assert.equal(
    storyText(run, 2),
    "This step kept 9 guesses, of which the model was 0.5 % sure. Nothing is left to guess.",
  );
  assert.match(storyText(run, 3), /^All cells are decided/);
  const single = newRun(HEAD);
  grow(single, frame([3], [1], [-1]));
  assert.match(storyText(single, 1), /^This step kept 1 guess\. 11 cells are/);
});

test("what is known of a cell, in words", () => {
  const { run } = readLog(NOTHING, log({ ...HEAD, known: [9, 7, 9, 9, 9, 9] }, FIRST));
  const said = (cell, at = 1) => {
    const { title, parts } = cellTexts(run, at, cell);
    return `${title}: ${parts.map((part) => part.strong || part).join("")}`;
  };
  assert.equal(said(1), "Image 1, row 1, column 2: Token 7, from the photo. It never changes.");
  assert.equal(said(2), "Image 1, row 1, column 3: Still masked at this step.");
  assert.equal(said(4), "Image 1, row 2, column 2: Token 2, decided in step 1 of 2 with 25 % confidence.");
  assert.equal(said(6), "Image 2, row 1, column 1: Token 3, decided in step 1 of 2.");
  assert.equal(said(4, 0), "Image 1, row 2, column 2: Still masked at this step.");
  assert.deepEqual(cellTexts(run, 1, 4).options, [[2, 0], [700, 300]]);
});

test("shares and colours", () => {
  assert.deepEqual([0, 4, 10, 255, 1000].map(percentOf), ["0.0 %", "0.4 %", "1 %", "26 %", "100 %"]);
  assert.deepEqual([ramp(-1), ramp(2)], ["rgb(59,47,107)", "rgb(250,222,92)"]);
  assert.notEqual(ramp(0.4), ramp(0.5));
});

test("the curve begins at the top and ends at the bottom", () => {
  assert.deepEqual(curvePoints([0.5, 0.25, 0]), [[30, 8], [130, 43], [230, 78]]);
  assert.ok(curvePoints([0]).flat().every(Number.isFinite));
});
