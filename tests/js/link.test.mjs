import assert from "node:assert/strict";
import { test } from "node:test";

import { read } from "./scripts.mjs";

const USUAL = [12, "confidence"];

/** The address that the page's script makes of these values. */
function linked(values, { touched = true, onlyTouched = false, model, from = "https://p.example/" }) {
  const filled = {
    NAMES: ["num_steps", "order"], USUAL, MENU: Boolean(model), ONLY_TOUCHED: onlyTouched,
  };
  let text = read("link.js").split("\n").slice(1).join("\n").replace("COPY", "return url.href;");
  for (const [name, value] of Object.entries(filled)) text = text.replaceAll(name, JSON.stringify(value));
  const addresses = [];
  const window = {
    maskgitTouched: touched,
    maskgitModel: model,
    location: { href: from },
    history: { state: null, replaceState: (state, title, url) => addresses.push(url.href) },
  };
  const made = new Function("window", `return ${text}`)(window)(...values);
  assert.deepEqual(addresses, Array.isArray(made) ? [] : [made]);
  return made;
}

test("a link holds what is not as usual, and the classes in their order", () => {
  assert.equal(
    linked([["sea", "été"], 3, 8, "Custom", 12, "raster"], {}),
    "https://p.example/?class=sea&class=%C3%A9t%C3%A9&images=3&seed=8&order=raster",
  );
});

test("what the address held before is replaced, foreign parts stay", () => {
  const from = "https://p.example/?__theme=dark&class=old&num_steps=4&model=m";
  assert.equal(
    linked([null, 1, 2, "Custom", 12, "confidence"], { from }),
    "https://p.example/?__theme=dark&images=1&seed=2",
  );
});

test("a preset that was just chosen counts more than the settings that wait for it", () => {
  const model = { name: "m", usual: "Balanced", presets: { Balanced: USUAL, Fast: [6, "confidence"] } };
  assert.equal(
    linked([["sea"], 1, 2, "Fast", 12, "confidence"], { model }),
    "https://p.example/?model=m&class=sea&images=1&seed=2&num_steps=6",
  );
});

test("before the visitor has done something the address stays", () => {
  const values = [["sea"], 1, 2, "Custom", 3, "raster"];
  assert.deepEqual(linked(values, { touched: false, onlyTouched: true }), []);
});
