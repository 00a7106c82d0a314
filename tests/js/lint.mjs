// Lints the page's scripts: `node lint.mjs`; exits 1 where something is found. Scripts that the page
// puts together are linted together, so that what one leaves unused or undefined is found.

import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

import js from "@eslint/js";
import { ESLint } from "eslint";

import { read } from "./scripts.mjs";

const TOGETHER = [
  ["player_run", "player_draw", "player_words", "player_moves", "player", "player_again"],
  ["painter_geometry", "painter_frame", "painter"],
];
const GIVEN = {
  gradio: ["element", "props", "trigger", "watch", "upload"],
  browser: [
    "window", "document", "navigator", "performance", "console", "URL", "URLSearchParams", "Image",
    "Event", "CustomEvent", "MutationObserver", "ResizeObserver", "requestAnimationFrame",
    "getComputedStyle", "CSS", "setTimeout", "clearTimeout", "setInterval", "clearInterval", "atob",
  ],
  link: ["NAMES", "USUAL", "MENU", "ONLY_TOUCHED", "COPY"],
};
const globals = (...groups) =>
  Object.fromEntries(groups.flatMap((group) => GIVEN[group]).map((name) => [name, "readonly"]));

const rules = {
  ...js.configs.recommended.rules,
  eqeqeq: "error",
  "no-implicit-globals": "off",
  "no-shadow": ["error", { allow: ["text", "image", "event", "name"] }],
  "no-var": "error",
  "prefer-const": "error",
};

function linter(sourceType, ...groups) {
  return new ESLint({
    cwd: fileURLToPath(new URL(".", import.meta.url)),
    overrideConfigFile: true,
    overrideConfig: {
      languageOptions: { ecmaVersion: 2023, sourceType, globals: globals(...groups) },
      linterOptions: { reportUnusedDisableDirectives: "error" },
      rules,
    },
  });
}

/** Lint some files as one text; tell what is found by file and line. */
async function lintTogether(eslint, files) {
  const texts = files.map(read);
  const [{ messages }] = await eslint.lintText(texts.join("\n"));
  for (const { line, ruleId, message } of messages) {
    let [at, left] = [0, line];
    for (let lines; (lines = texts[at].split("\n").length) < left; at++) left -= lines;
    console.log(`demo/assets/${files[at]}:${left}: ${message} (${ruleId})`);
  }
  return messages.length;
}

const all = readdirSync(fileURLToPath(new URL("../../demo/assets", import.meta.url)))
  .filter((name) => name.endsWith(".js"));
const bundles = TOGETHER.map((names) => names.map((name) => `${name}.js`));
const alone = all.filter((name) => !bundles.flat().includes(name)).map((name) => [name]);

let count = 0;
for (const files of [...bundles, ...alone]) {
  const groups = files[0] === "link.js" ? ["browser", "link"] : ["browser", "gradio"];
  count += await lintTogether(linter("commonjs", ...groups), files);
}
if (count) process.exitCode = 1;
else console.log(`${all.length} scripts: nothing found`);
