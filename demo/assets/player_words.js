// The words, numbers and the curve around the images. Part of player.js.

function where() {
  const all = run.num_steps;
  if (run.kind === "preview") return "";
  if (at > frames().length) return run.seconds ? `Result, ${run.seconds} s` : "Result";
  if (at === 0) return run.waiting ? `Place ${run.waiting} in line` : "Start";
  return `Step ${at} of ${all}`;
}

function refresh() {
  if (!run) return;
  const scrub = q(".mg-scrub");
  scrub.max = Math.max(positions(), run.num_steps);
  scrub.value = at;
  scrub.setAttribute("aria-valuetext", where());
  q(".mg-where").textContent = where();
  element.querySelectorAll(".mg-stage figcaption").forEach((text, i) => {
    if (text.textContent !== run.captions[i]) text.textContent = text.title = run.captions[i];
  });
  element.dataset.at = at;
  element.dataset.frames = frames().length;
  element.dataset.done = run.result ? "yes" : "no";
  legend();
  story();
  curve();
  details();
  draw();
}

// What the step did, in words: how many guesses were kept, and how sure the model was of them.
function story() {
  const step = frames()[Math.min(at, frames().length) - 1];
  const open = revealedAt.reduce((count, when) => count + (when > at), 0);
  const cells = (count) => `${count} ${count === 1 ? "cell is" : "cells are"}`;
  const parts = [];
  if (run.kind === "preview" || (at === 0 && !open)) parts.push("");
  else if (at === 0) parts.push(`Before the first step ${cells(open)} masked.`);
  else if (at > frames().length) parts.push("All cells are decided. Press play to see how.");
  else {
    const sure = step.sure.filter((value) => value >= 0);
    const range = [Math.min(...sure), Math.max(...sure)].map(percentOf);
    const words = range[0] === range[1] ? range[0] : `${range[0]} to ${range[1]}`;
    parts.push(`This step kept ${step.cells.length} ${step.cells.length === 1 ? "guess" : "guesses"}`);
    parts.push(sure.length ? `, of which the model was ${words} sure. ` : ". ");
    parts.push(open ? `${cells(open)} still masked and will be guessed again.` : "Nothing is left to guess.");
  }
  q(".mg-story").textContent = parts.join("");
}

function legend() {
  const box = q(".mg-legend");
  box.hidden = view !== "confidence" && view !== "order";
  if (box.hidden) return;
  const stops = STOPS.map((stop) => `rgb(${stop.join(",")})`).join(",");
  q(".mg-scale").style.background = `linear-gradient(90deg, ${stops})`;
  const order = view === "order";
  q(".mg-low").textContent = order ? "Decided first" : "Unsure, 0 %";
  q(".mg-high").textContent = order ? `Decided last, step ${run.num_steps}` : "Sure, 100 %";
}

const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function curve() {
  const plan = run.plan;
  const last = plan.length - 1;
  const top = Math.max(plan[0], 0.01);
  const x = (i) => 30 + (200 * i) / Math.max(1, last);
  const y = (share) => 8 + 70 * (1 - share / top);
  const shown = Math.min(at, last);
  const percent = (share) => `${Math.round(share * 100)} %`;
  const parts = [
    svg("path", { class: "mg-axis", d: "M30 8V78H230" }),
    svg("text", { x: 26, y: 11, "text-anchor": "end" }, percent(plan[0])),
    svg("text", { x: 26, y: 81, "text-anchor": "end" }, "0 %"),
    svg("text", { x: 30, y: 92 }, "start"),
    svg("text", { x: 230, y: 92, "text-anchor": "end" }, `step ${last}`),
    svg("polyline", { class: "mg-plan", points: plan.map((s, i) => `${x(i)},${y(s)}`).join(" ") }),
  ];
  if (last <= 32) {
    plan.forEach((s, i) => {
      const done = i <= shown ? " mg-done" : "";
      parts.push(svg("circle", { class: "mg-point" + done, cx: x(i), cy: y(s), r: 2.2 }));
    });
  }
  parts.push(svg("circle", { class: "mg-now", cx: x(shown), cy: y(plan[shown]), r: 5 }));
  q(".mg-curve svg").replaceChildren(...parts);
  q(".mg-curve figcaption").textContent = `Still masked: ${percent(plan[shown])}`;
}

function line(...parts) {
  const p = document.createElement("p");
  parts.forEach((part) => {
    if (typeof part === "string") p.append(part);
    else {
      const strong = document.createElement("strong");
      strong.textContent = part.strong;
      p.append(strong);
    }
  });
  return p;
}

function details() {
  const panel = q(".mg-cell");
  if (cursor === null) {
    panel.replaceChildren(line("Point at a cell, or tap it, to see its token and what else it could have been."));
    return;
  }
  const n = cellsPerImage();
  const image = Math.floor(cursor / n);
  const row = Math.floor((cursor % n) / run.columns) + 1;
  const column = ((cursor % n) % run.columns) + 1;
  const place = `${run.count > 1 ? `Image ${image + 1}, row` : "Row"} ${row}, column ${column}`;
  if (!isShown(cursor)) {
    panel.replaceChildren(line({ strong: place }), line("Still masked at this step."));
    return;
  }
  const id = codes[cursor];
  if (revealedAt[cursor] === KNOWN) {
    const origin = run.kind === "redo" ? "kept from before" : "from the photo";
    panel.replaceChildren(line({ strong: place }), line(`Token ${id}, ${origin}. It never changes.`));
    return;
  }
  // Compared runs can have fewer steps than the longest, which the player counts.
  const all = run.kind === "compare" ? "" : ` of ${run.num_steps}`;
  const sure = sureness[cursor] < 0 ? "" : ` with ${percentOf(sureness[cursor])} confidence`;
  const parts = [
    line({ strong: place }),
    line("Token ", { strong: String(id) }, `, decided in step ${revealedAt[cursor]}${all}${sure}.`),
  ];
  if (options[cursor]) {
    const list = document.createElement("ol");
    const [ids, shares] = options[cursor];
    const most = Math.max(...shares, 1);
    ids.forEach((option, i) => {
      const item = document.createElement("li");
      if (option === id) item.className = "mg-taken";
      const patch = document.createElement("canvas");
      drawPatch(patch, option);
      const name = document.createElement("span");
      name.textContent = option;
      const bar = document.createElement("span");
      const fill = document.createElement("b");
      fill.style.width = `${(100 * shares[i]) / most}%`;
      bar.append(fill);
      const share = document.createElement("span");
      share.textContent = percentOf(shares[i]);
      item.append(patch, name, bar, share);
      list.append(item);
    });
    parts.push(line("Likeliest codes at that moment:"), list);
  }
  panel.replaceChildren(...parts);
}

const percentOf = (mille) => (mille < 10 ? `${(mille / 10).toFixed(1)} %` : `${Math.round(mille / 10)} %`);
