// Building the page. Text gets in as text nodes and in no other way.

export const byId = (id) => document.getElementById(id);

/** An element; children that are strings become text. The only attributes with others' words are labels and values. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A button that does something. */
export function button(attributes, action, ...children) {
  const node = el("button", { type: "button", ...attributes }, ...children);
  node.addEventListener("click", action);
  return node;
}

/** One of the icons that stand in the page as templates. */
export const icon = (name) => byId(`icon-${name}`).content.firstElementChild.cloneNode(true);

/** Set an element's text where it changed, so that a selection in it and what a screen reader reads stay. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Tell a screen reader; the same words twice are said twice. */
export function announce(text) {
  const announcer = byId("announcer");
  announcer.textContent = "";
  setTimeout(() => (announcer.textContent = text), 50);
}

/** Copy, also where the page has no secure context: a server on the local network without TLS. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "hidden", "aria-hidden": "true", tabindex: "-1" });
    area.value = text;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}
