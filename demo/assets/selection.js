// Keeps what is marked in one player, so that a button can send it.
function keep(detail) {
  if (detail && detail.player === props.player) props.value = { run: detail.run, cells: detail.cells };
}
window.addEventListener("maskgit-selection", (event) => keep(event.detail));
keep((window.maskgitSelections || {})[props.player]);
