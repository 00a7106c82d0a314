// A finished run may still be getting pictures of its quick steps, and is stoppable until it has
// them. Who wants the next run must not wait for these: the button ends them and is pressed again.
// Part of player.js.

const named = (part) => document.getElementById(props.player_id.replace("player", part));
const STARTERS = ["go", "redo", "redo-rest"];

document.addEventListener("click", (event) => {
  const button = STARTERS.map(named).find((one) => one && one.contains(event.target));
  const stopper = named("stop");
  if (!button || !element.isConnected || !run || !run.result) return;
  if (!stopper || stopper.disabled) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  stopper.click();
  const watcher = new MutationObserver(() => {
    if (!stopper.disabled) return;
    watcher.disconnect();
    press(button, stopper, toasts(), 20);
  });
  watcher.observe(stopper, { attributes: true, attributeFilter: ["disabled"] });
}, { capture: true });

// Gradio drops a click while it waits for the server to say that the old run has ended.
const toasts = () => document.querySelectorAll(".toast-body").length;
function press(button, stopper, noticed, tries) {
  if (!tries || !stopper.disabled || toasts() > noticed) return;
  button.click();
  setTimeout(() => press(button, stopper, noticed, tries - 1), 150);
}
