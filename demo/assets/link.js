// Builds the link that restores the settings, and puts it into the address bar.
(...values) => {
  if (ONLY_TOUCHED && !window.maskgitTouched) return [];
  const names = NAMES;
  const model = window.maskgitModel;
  const usual = (model && model.presets[model.usual]) || USUAL;
  const url = new URL(window.location.href);
  for (const key of ["model", "class", "images", "seed", ...names]) url.searchParams.delete(key);
  const [classes, count, seed, preset, ...shown] = values;
  // A preset that was just chosen may not have reached the settings below it yet.
  const fields = (model && model.presets[preset]) || shown;
  if (MENU && model) url.searchParams.set("model", model.name);
  (Array.isArray(classes) ? classes : []).forEach((name) => url.searchParams.append("class", name));
  url.searchParams.set("images", count);
  url.searchParams.set("seed", seed);
  names.forEach((name, i) => {
    if (fields[i] !== usual[i]) url.searchParams.set(name, fields[i]);
  });
  window.history.replaceState(window.history.state, "", url);
  COPY
}
