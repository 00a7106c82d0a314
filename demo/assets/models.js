// The list of models: one radio button each. What cannot be used here is greyed and says why.
const list = () => element.querySelector(".mm-list");
let picked = "";
const group = `models-${Math.random().toString(36).slice(2)}`;

function line(entry) {
  const label = document.createElement("label");
  label.className = "mm-entry";
  label.dataset.name = entry.name;
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: group, value: entry.name });
  input.checked = entry.name === picked;
  input.disabled = Boolean(entry.obstacle);
  if (entry.obstacle) label.dataset.blocked = "";
  const text = document.createElement("span");
  const title = document.createElement("strong");
  title.textContent = entry.title;
  const facts = document.createElement("small");
  facts.textContent = entry.obstacle ? `${entry.obstacle} ${entry.facts}` : entry.facts;
  text.append(title, facts);
  label.append(input, text);
  return label;
}
function build() {
  const value = props.value || {};
  // News of the machine names no model: what was picked in the meantime stays.
  if (value.chosen === null) props.value = { ...value, chosen: picked };
  else picked = value.chosen || "";
  element.querySelector(".mm-head").textContent = value.headline || "";
  const focused = element.contains(document.activeElement) && document.activeElement.value;
  const place = list().scrollTop;
  list().replaceChildren(...(value.entries || []).map(line));
  list().scrollTop = place;
  const again = focused && list().querySelector(`input[value="${CSS.escape(focused)}"]`);
  if (again) again.focus();
}
element.addEventListener("change", (event) => {
  if (event.target.type !== "radio") return;
  event.stopPropagation();
  picked = event.target.value;
  props.value = { ...props.value, chosen: picked };
});
watch("value", build);
build();
