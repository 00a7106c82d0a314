// Builds the link that restores the settings, and puts it into the address bar.
(...values) => {
  const names = NAMES;
  const model = window.maskgitModel;
  const usual = (model && model.presets[model.usual]) || USUAL;
  const url = new URL(window.location.href);
  for (const key of ["model", "class", "images", "seed", ...names]) url.searchParams.delete(key);
  const [classes, count, seed, ...fields] = values;
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
