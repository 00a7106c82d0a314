// The scripts of the page, put together as the page does, here without a page around them.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import vm from "node:vm";

const assets = fileURLToPath(new URL("../../demo/assets/", import.meta.url));

/** Text of a script. */
export const read = (file) => readFileSync(assets + file, "utf8");

/** The named functions and constants of some scripts. */
export function load(files, names) {
  const text = files.map(read).join("\n");
  return vm.runInThisContext(`(() => {\n${text}\nreturn { ${names.join(", ")} };\n})()`);
}
