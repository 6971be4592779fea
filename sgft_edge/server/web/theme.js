// Loaded before the first paint, so that a remembered choice of colours does not flash the other one.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("sgft-edge.theme");
  } catch {
    // a browser that lets nothing be kept: the system's colours
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
