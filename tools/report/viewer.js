"use strict";
(() => {
  const place = document.getElementById("viewer-stage"), status = document.getElementById("viewer-status");
  if (!place) return;
  const content = JSON.parse(document.getElementById("viewer-volumes").textContent);
  const canvas = place.querySelector("canvas");
  const say = (text) => { status.textContent = text; };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const unzip = async (text) => new Response(new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip")));
  const library = async () => {
    const script = document.createElement("script");
    script.textContent = await (await unzip(document.getElementById("viewer-library").textContent.trim())).text();
    document.body.append(script);
    return window.niivue;
  };
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const table = () => {
    const colours = content.labels.map((l) => rgb(l.colour));
    const column = (i) => [0, ...colours.map((c) => c[i])];
    return { R: column(0), G: column(1), B: column(2), A: [0, ...colours.map(() => 255)], labels: ["", ...content.labels.map((l) => l.name)] };
  };
  let viewer = null, nv = null, at = { case: 0, layer: 0 }, turn = Promise.resolve();

  const planes = () => {
    const kind = document.getElementById("viewer-planes").value, types = nv.SLICE_TYPE;
    return content.cases[at.case].dim === 2 ? types.AXIAL : types[kind];
  };
  const volume = (data, name, colormap, opacity) => nv.NVImage.loadFromBase64({ base64: data, name, colormap, opacity });
  const overlay = async () => {
    const layer = content.cases[at.case].layers[at.layer];
    while (viewer.volumes.length > 1) viewer.removeVolume(viewer.volumes[1]);
    const image = await volume(layer.data, "layer.nii.gz", "gray", Number(document.getElementById("viewer-opacity").value));
    image.setColormapLabel(table());
    viewer.addVolume(image);
    viewer.setInterpolation(true);
    viewer.updateGLVolume();
    const dice = layer.dice === null ? "" : `, mean Dice ${layer.dice.toFixed(3)}`;
    say(`${content.cases[at.case].case}: ${layer.name}${dice}`);
    place.dataset.state = "ready";
    place.dataset.volumes = String(viewer.volumes.length);
  };
  const load = async () => {
    place.dataset.state = "loading";
    while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
    viewer.addVolume(await volume(content.cases[at.case].image, "image.nii.gz", "gray", 1));
    viewer.setSliceType(planes());
    await overlay();
  };
  const buttons = (id, names, chosen) => {
    const bar = document.getElementById(id);
    bar.replaceChildren(...names.map((name, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.value = String(i);
      button.textContent = name;
      button.setAttribute("aria-pressed", String(i === chosen));
      return button;
    }));
  };
  const layers = () => {
    const names = content.cases[at.case].layers.map((l) => l.name);
    at.layer = Math.min(at.layer, names.length - 1);
    buttons("viewer-layers", names, at.layer);
    const shown = new Set(content.cases[at.case].present);
    document.querySelectorAll("#viewer-legend span").forEach((e) => { e.hidden = !shown.has(Number(e.dataset.index)); });
  };
  const then = (work) => { turn = turn.then(work).catch((error) => { place.dataset.state = "failed"; say(String(error)); }); };
  const choose = (id, key, work) => document.getElementById(id).addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    at[key] = Number(button.value);
    event.currentTarget.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    if (key === "case") layers();
    if (begun) then(() => viewer && work()); else begin();
  });

  const start = async () => {
    if (!document.createElement("canvas").getContext("webgl2")) {
      place.dataset.state = "unsupported";
      say("This browser cannot show volumes (it has no WebGL 2). The pictures below show cases in three planes.");
      return;
    }
    say("Loading …");
    nv = { ...(await library()) };
    viewer = new nv.Niivue({ backColor: [0.06, 0.07, 0.09, 1], crosshairColor: [1, 1, 1, 0.5], crosshairWidth: 0.8, crosshairWidthUnit: "mm", isResizeCanvas: true, dragAndDropEnabled: false, logLevel: "error", loadingText: "" });
    await viewer.attachToCanvas(canvas);
    viewer.opts.multiplanarShowRender = nv.SHOW_RENDER.ALWAYS;
    viewer.setRadiologicalConvention(true);
    await load();
  };
  let begun = false;
  const begin = () => { if (!begun) { begun = true; then(start); } };
  buttons("viewer-cases", content.cases.map((c) => `${c.case} (${c.kind})`), 0);
  layers();
  choose("viewer-cases", "case", load);
  choose("viewer-layers", "layer", overlay);
  document.getElementById("viewer-opacity").addEventListener("input", (event) => {
    if (viewer && viewer.volumes.length > 1) viewer.setOpacity(1, Number(event.target.value));
  });
  document.getElementById("viewer-planes").addEventListener("change", () => { if (viewer) viewer.setSliceType(planes()); });
  new IntersectionObserver((seen, watcher) => {
    if (seen.some((s) => s.isIntersecting)) { watcher.disconnect(); begin(); }
  }, { rootMargin: "400px" }).observe(place);
})();
