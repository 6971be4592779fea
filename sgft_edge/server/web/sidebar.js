// The list of conversations, and on a narrow screen the drawer that it is in.

import { button, byId, el, icon } from "./dom.js";

const narrow = matchMedia("(max-width: 760px)");
const sidebar = byId("sidebar");
const backdrop = byId("backdrop");
const opener = byId("open-drawer");

/** Show the list. `actions` has open, rename and remove, which take a conversation. */
export function showList(conversations, current, runs, actions) {
  const focused = document.activeElement?.closest?.("#conversations [data-id]");
  const kept = focused && { id: focused.dataset.id, name: document.activeElement.className };
  const items = [...conversations]
    .sort((one, other) => other.updated - one.updated)
    .map((conversation) => item(conversation, conversation === current, runs.has(conversation.id), actions));
  byId("conversations").replaceChildren(...items);
  const same = kept && items.find((node) => node.dataset.id === kept.id);
  same?.querySelector(`button[class="${kept.name}"]`)?.focus();
}

function item(conversation, isCurrent, isRunning, actions) {
  const open = button({ class: "open" }, () => actions.open(conversation), el("bdi", {}, conversation.title));
  if (isCurrent) open.setAttribute("aria-current", "page");
  if (isRunning) open.append(el("span", { class: "running" }, el("span", { class: "hidden" }, " (being answered)")));
  const rename = button({ class: "icon rename", title: "Rename" }, () => actions.rename(conversation), icon("rename"));
  rename.setAttribute("aria-label", `Rename ${conversation.title}`);
  const remove = button({ class: "icon delete", title: "Delete" }, () => actions.remove(conversation), icon("delete"));
  remove.setAttribute("aria-label", `Delete ${conversation.title}`);
  return el("li", { "data-id": conversation.id }, open, rename, remove);
}

/** Open or close the drawer; on a wide screen the list is always there. */
export function drawer(open) {
  const covers = narrow.matches && open;
  const held = sidebar.contains(document.activeElement);
  sidebar.classList.toggle("opened", covers);
  backdrop.hidden = !covers;
  opener.setAttribute("aria-expanded", String(covers));
  sidebar.inert = narrow.matches && !open;
  byId("main").inert = covers;
  if (covers) byId("new").focus();
  else if (held && narrow.matches) opener.focus();
}

export const drawerIsOpen = () => sidebar.classList.contains("opened");

opener.addEventListener("click", () => drawer(true));
byId("close-drawer").addEventListener("click", () => drawer(false));
backdrop.addEventListener("click", () => drawer(false));
narrow.addEventListener("change", () => drawer(false));
drawer(false);
