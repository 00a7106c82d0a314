// Tells the page's scripts which model is in use and which presets it has.
function put() {
  if (props.value && props.value.name) window.maskgitModel = props.value;
}
// What the page itself sets as it opens is no news for the address bar.
for (const kind of ["pointerdown", "keydown"]) {
  window.addEventListener(kind, () => { window.maskgitTouched = true; }, { once: true, capture: true });
}
watch("value", put);
put();
