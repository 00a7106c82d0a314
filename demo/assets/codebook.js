// Hands the colours and decoded patches of a model's codes to every player on the page.
function put() {
  if (!props.value || !props.value.model) return;
  window.maskgitCodebooks = { ...window.maskgitCodebooks, [props.value.model]: props.value };
  window.dispatchEvent(new Event("maskgit-codebook"));
}
watch("value", put);
put();
