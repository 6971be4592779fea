// The dialogs: settings, a new title, and whether to delete.

import { byId } from "./dom.js";
import { LIMITS, apiKey } from "./store.js";

const waiting = new Map(); // what to call with a dialog's fields, or with null

for (const dialog of document.querySelectorAll("dialog")) {
  const form = dialog.querySelector("form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    end(dialog, new FormData(form));
  });
  form.querySelector("[value=cancel]").addEventListener("click", () => end(dialog, null));
  dialog.addEventListener("click", (event) => event.target === dialog && end(dialog, null)); // outside of the form
  dialog.addEventListener("close", () => dialog.open || end(dialog, null)); // by Escape; it may be open again by now
}

/** Show a dialog; the form's fields where it was submitted, null where it was closed in another way. */
function asked(dialog) {
  end(dialog, null);
  dialog.showModal();
  return new Promise((resolve) => waiting.set(dialog, resolve));
}

function end(dialog, fields) {
  const resolve = waiting.get(dialog);
  waiting.delete(dialog);
  dialog.close();
  resolve?.(fields);
}

/** The settings as the user leaves them, with the `key`; null where nothing is to change. */
export async function askSettings(settings, focusOn = "system") {
  const { elements } = byId("settings").querySelector("form");
  elements.system.value = settings.system;
  elements.key.value = apiKey();
  for (const name of Object.keys(LIMITS)) elements[name].value = settings[name] ?? "";
  const answered = asked(byId("settings"));
  elements[focusOn].focus();
  const fields = await answered;
  if (!fields) return null;
  const numbers = Object.keys(LIMITS).map((name) => [name, fields.get(name) === "" ? null : Number(fields.get(name))]);
  const system = fields.get("system").trim();
  return { settings: { ...settings, system, ...Object.fromEntries(numbers) }, key: fields.get("key").trim() };
}

/** A new title, null where the old one stays. */
export async function askTitle(title) {
  const field = byId("rename").querySelector("form").elements.title;
  field.value = title;
  const answered = asked(byId("rename"));
  field.select();
  return (await answered)?.get("title").trim() || null;
}

/** Whether to delete a conversation. */
export async function askDelete(title) {
  byId("delete-what").textContent = title;
  return (await asked(byId("delete"))) !== null;
}
