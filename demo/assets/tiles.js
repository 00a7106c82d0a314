// A row of pictures to press. Where props.chosen is given they are classes, and each shows whether
// it is chosen in the list.
const box = () => element.querySelector(".ct");
const chosen = () => window.maskgitClasses || props.chosen || [];

function build() {
  const tiles = (props.value && props.value.tiles) || [];
  box().replaceChildren(...tiles.map((tile) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = tile.name;
    const image = document.createElement("img");
    image.src = tile.src;
    image.alt = "";
    const text = document.createElement("span");
    text.textContent = tile.name;
    button.append(image, text);
    return button;
  }));
  press();
}
function press() {
  if (!props.chosen) return;
  element.querySelectorAll("button").forEach((button) => {
    button.setAttribute("aria-pressed", String(chosen().includes(button.dataset.name)));
  });
}
element.addEventListener("click", (event) => {
  const button = event.target.closest && event.target.closest("button");
  if (!button) return;
  props.value = { ...props.value, clicked: button.dataset.name };
  trigger("click");
});
window.addEventListener("maskgit-classes", press);
watch("value", build);
build();
