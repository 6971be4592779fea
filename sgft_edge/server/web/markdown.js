// A small part of Markdown as DOM nodes: paragraphs, headings, lists, fenced code, **bold**, *italic*, `code`.
//
// Every piece of text becomes a text node, no attribute comes from the text but a list's first number, and there are
// no links and no images. What is not understood stays as it was written, TeX between \( and \) among it.

import { el } from "./dom.js";

const LONGEST = 100_000; // characters; what is longer is shown as it is
const DEEPEST = 8; // lists inside each other, and emphasis likewise

const FENCE = /^\s{0,3}(`{3,}|~{3,})[^`]*$/;
const HEADING = /^(#{1,6})\s+(\S.*)$/;
const ITEM = /^(\s*)([-*+•]|\d{1,6}[.)])(\s+)(\S.*)$/;
const BEFORE = /[\p{L}\p{N})\]]/u; // before stars that open emphasis and after those that close it, neither of these:
const AFTER = /[\p{L}\p{N}([]/u; // the stars of 2*3*4 and (a)*(b) are arithmetic

export function markdown(text) {
  const fragment = document.createDocumentFragment();
  if (text.length > LONGEST) fragment.append(el("p", { dir: "auto" }, text));
  else blocks(fragment, text.replaceAll("\r\n", "\n").split("\n"), 0);
  return fragment;
}

function blocks(parent, lines, depth) {
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const heading = line.match(HEADING);
    if (!line.trim()) at += 1;
    else if (FENCE.test(line)) at = fenced(parent, lines, at);
    else if (heading) {
      const node = el(`h${Math.min(6, 3 + heading[1].length)}`, { dir: "auto" }); // the page's own go down to h3
      inline(node, withoutClosing(heading[2]));
      parent.append(node);
      at += 1;
    } else if (depth < DEEPEST && ITEM.test(line)) at = list(parent, lines, at, depth);
    else at = paragraph(parent, lines, at);
  }
}

/** A heading's text without the number signs that may close it. */
function withoutClosing(text) {
  const trimmed = text.trimEnd();
  let end = trimmed.length;
  while (trimmed[end - 1] === "#") end -= 1;
  return trimmed.slice(0, end).trimEnd() || trimmed;
}

function fenced(parent, lines, start) {
  const mark = lines[start].match(FENCE)[1];
  const closes = (line) => line.trim().length >= mark.length && !line.trim().replaceAll(mark[0], "");
  let end = start + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  const code = el("code", {}, lines.slice(start + 1, end).join("\n"));
  parent.append(el("pre", { tabindex: "0" }, code)); // it may be wide: reachable, so that keys can scroll it
  return end + 1;
}

function paragraph(parent, lines, start) {
  let end = start + 1;
  while (end < lines.length && lines[end].trim() && !interrupts(lines[end])) end += 1;
  const node = el("p", { dir: "auto" });
  inline(node, lines.slice(start, end).join("\n").trim());
  parent.append(node);
  return end;
}

/** Whether a line ends a paragraph; of ordered lists only one that begins with 1, as a line may begin with a number. */
function interrupts(line) {
  const item = line.match(ITEM);
  return FENCE.test(line) || HEADING.test(line) || (item !== null && (!/\d/.test(item[2]) || parseInt(item[2]) === 1));
}

function list(parent, lines, start, depth) {
  const [, space, mark] = lines[start].match(ITEM);
  const ordered = /\d/.test(mark);
  const node = ordered ? el("ol", { start: String(parseInt(mark)) }) : el("ul");
  let at = start;
  while (at < lines.length) {
    const item = lines[at].match(ITEM);
    if (!item || item[1].length > space.length + 1 || /\d/.test(item[2]) !== ordered) break;
    const indent = item[1].length + item[2].length + item[3].length;
    const own = [item[4]];
    at += 1;
    while (at < lines.length && belongs(lines, at, space.length)) {
      own.push(lines[at].slice(Math.min(indent, lines[at].search(/\S|$/))));
      at += 1;
    }
    const entry = el("li", { dir: "auto" });
    if (own.slice(1).some((line) => line.trim())) blocks(entry, own, depth + 1);
    else inline(entry, own[0]);
    node.append(entry);
    let next = at;
    while (next < lines.length && !lines[next].trim()) next += 1;
    if (ITEM.test(lines[next] ?? "")) at = next; // items may have blank lines between them
  }
  parent.append(node);
  return at;
}

/** Whether a line goes on with an item of a list that is indented by `space`. */
function belongs(lines, at, space) {
  const line = lines[at];
  if (!line.trim()) return /^\s{2,}\S/.test(lines[at + 1] ?? "") && lines[at + 1].search(/\S/) > space + 1;
  if (line.search(/\S/) > space + 1) return true;
  return Boolean(lines[at - 1].trim()) && !ITEM.test(line) && !FENCE.test(line) && !HEADING.test(line);
}

function inline(parent, text, depth = 0) {
  let plain = "";
  let at = 0;
  const endless = new Set(); // marks that nothing closes from here on
  const put = (node) => {
    if (plain) parent.append(plain);
    plain = "";
    if (node) parent.append(node);
  };
  while (at < text.length) {
    const char = text[at];
    if (char === "\\" && (text[at + 1] === "*" || text[at + 1] === "`")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    if (char === "`" || char === "*") {
      const mark = run(text, at);
      const tried = !endless.has(mark) && opens(text, at, mark);
      const end = tried ? closing(text, at + mark.length, mark) : -1;
      if (tried && end === -1) endless.add(mark);
      if (end !== -1 && depth < DEEPEST) {
        const inside = text.slice(at + mark.length, end);
        const node = el(char === "`" ? "code" : mark === "*" ? "em" : "strong");
        if (char === "`") node.append(inside);
        else inline(node, inside, depth + 1);
        put(node);
        at = end + mark.length;
      } else {
        plain += mark;
        at += mark.length;
      }
      continue;
    }
    plain += char;
    at += 1;
  }
  put();
}

/** The same character as often as it stands there. */
function run(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return text.slice(at, end);
}

/** Whether a mark can be the first of two. */
function opens(text, at, mark) {
  if (mark[0] === "`") return true;
  const after = text[at + mark.length] ?? " ";
  return mark.length <= 2 && !/\s/.test(after) && !BEFORE.test(text[at - 1] ?? "");
}

/** Where the other of two marks stands, -1 where there is none. */
function closing(text, from, mark) {
  for (let end = text.indexOf(mark, from); end !== -1; ) {
    const found = run(text, end);
    const closes = mark[0] === "`" || (!/\s/.test(text[end - 1]) && !AFTER.test(text[end + mark.length] ?? ""));
    if (found === mark && closes) return end;
    end = text.indexOf(mark, end + found.length);
  }
  return -1;
}
