// The switch between light and dark. It is remembered where it differs from the system's choice (see theme.js).

import { byId } from "./dom.js";
import { saveTheme } from "./store.js";

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const { dataset } = document.documentElement;
const isDark = () => (dataset.theme ?? (systemIsDark.matches ? "dark" : "light")) === "dark";
const show = () => byId("dark").setAttribute("aria-checked", String(isDark()));

byId("dark").addEventListener("click", () => {
  const wanted = isDark() ? "light" : "dark";
  const chosen = (wanted === "dark") === systemIsDark.matches ? null : wanted; // back to the system's: follow it again
  if (chosen) dataset.theme = chosen;
  else delete dataset.theme;
  saveTheme(chosen);
  show();
});
systemIsDark.addEventListener("change", show);
show();
