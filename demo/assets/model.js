// Tells the page's scripts which model is in use and which presets it has.
function put() {
  if (props.value && props.value.name) window.maskgitModel = props.value;
}
watch("value", put);
put();
