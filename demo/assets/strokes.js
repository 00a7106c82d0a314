// Reports a finished stroke in the editor as a click of this element.
let waiting = null;
let drawing = false;
const inEditor = (event) => event.target.closest && event.target.closest("#editor");
document.addEventListener("pointerdown", (event) => { drawing = Boolean(inEditor(event)); }, true);
document.addEventListener("pointerup", () => {
  if (!drawing) return;
  drawing = false;
  clearTimeout(waiting);
  waiting = setTimeout(() => trigger("click"), 350);
}, true);
