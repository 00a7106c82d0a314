// Takes a recipe that is dropped anywhere on the page; other files are left to the rest of it.
const isRecipe = (file) => file && (file.type === "application/json" || file.name.endsWith(".json"));
function over(event) {
  const items = event.dataTransfer ? [...event.dataTransfer.items] : [];
  if (items.some((item) => item.type === "application/json")) event.preventDefault();
}
async function drop(event) {
  const file = event.dataTransfer && event.dataTransfer.files[0];
  if (!element.isConnected || !isRecipe(file)) return;
  event.preventDefault();
  event.stopPropagation();
  // Without a path the server says that there is no such file.
  const { path } = await upload(file).catch(() => ({ path: null }));
  props.value = { path };
  trigger("upload");
}
document.addEventListener("dragover", over);
document.addEventListener("drop", drop, { capture: true });
