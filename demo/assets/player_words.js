// The words, numbers and the curve around the images. Part of player.js.

function refresh() {
  if (!run) return;
  const scrub = q(".mg-scrub");
  scrub.max = Math.max(positions(), run.num_steps);
  scrub.value = at;
  scrub.setAttribute("aria-valuetext", whereText(run, at));
  q(".mg-where").textContent = whereText(run, at);
  element.querySelectorAll(".mg-stage figcaption").forEach((text, i) => {
    if (text.textContent !== run.captions[i]) text.textContent = text.title = run.captions[i];
  });
  element.dataset.at = at;
  element.dataset.frames = run.frames.length;
  element.dataset.done = run.result ? "yes" : "no";
  legend();
  q(".mg-story").textContent = storyText(run, at);
  curve();
  details();
  draw();
}

function legend() {
  const box = q(".mg-legend");
  box.hidden = view !== "confidence" && view !== "order";
  if (box.hidden) return;
  q(".mg-scale").style.background = `linear-gradient(90deg, ${STOPS.map(rgb).join(",")})`;
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
  const points = curvePoints(plan);
  const last = plan.length - 1;
  const shown = Math.min(at, last);
  const percent = (share) => `${Math.round(share * 100)} %`;
  const circle = (name, [cx, cy], r) => svg("circle", { class: name, cx, cy, r });
  const parts = [
    svg("path", { class: "mg-axis", d: "M30 8V78H230" }),
    svg("text", { x: 26, y: 11, "text-anchor": "end" }, percent(plan[0])),
    svg("text", { x: 26, y: 81, "text-anchor": "end" }, "0 %"),
    svg("text", { x: 30, y: 92 }, "start"),
    svg("text", { x: 230, y: 92, "text-anchor": "end" }, `step ${last}`),
    svg("polyline", { class: "mg-plan", points: points.map((point) => point.join(",")).join(" ") }),
  ];
  if (last <= 32) {
    points.forEach((point, i) => parts.push(circle(`mg-point${i <= shown ? " mg-done" : ""}`, point, 2.2)));
  }
  parts.push(circle("mg-now", points[shown], 5));
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
  const { title, parts, options, id } = cellTexts(run, at, cursor);
  const shown = [line({ strong: title }), line(...parts)];
  if (options) shown.push(line("Likeliest codes at that moment:"), optionList(options, id));
  panel.replaceChildren(...shown);
}

function optionList([ids, shares], taken) {
  const list = document.createElement("ol");
  const most = Math.max(...shares, 1);
  ids.forEach((option, i) => {
    const item = document.createElement("li");
    if (option === taken) item.className = "mg-taken";
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
  return list;
}
