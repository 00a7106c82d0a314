// Puts the pictures and numbers of a photo into the text of the tour.
function fill() {
  const value = props.value;
  if (!value) return;
  element.querySelectorAll("[data-src]").forEach((image) => { image.src = value[image.dataset.src]; });
  element.querySelectorAll("[data-fill]").forEach((node) => { node.textContent = value[node.dataset.fill]; });
}
watch("value", fill);
fill();
