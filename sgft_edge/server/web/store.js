// What the browser keeps: conversations and settings in localStorage, the API key in sessionStorage.
//
// A conversation has a key of its own, so that one that got damaged takes no other with it. Storage may be full or
// forbidden: then the page goes on with what it holds in memory, and says so.

import { restoredReply } from "./reply.js";

const PREFIX = "sgft-edge.conversation.";
const DAMAGED = "sgft-edge.damaged.";
const SETTINGS = "sgft-edge.settings";
const THEME = "sgft-edge.theme";
const KEY = "sgft-edge.key"; // sessionStorage
const CURRENT = "sgft-edge.current"; // sessionStorage
const LONGEST_TITLE = 120;

export const LIMITS = { temperature: [0, 2], seed: [0, 2 ** 32 - 1], max_tokens: [1, 1_000_000] };

/** A conversation in which nothing was asked yet. It is stored with its first question. */
export function newConversation() {
  const bytes = crypto.getRandomValues(new Uint8Array(8)); // randomUUID is only for secure contexts
  const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, title: "", updated: Date.now(), turns: [] };
}

/** A title from a question: its first words. */
export function titleOf(question) {
  const line = question.trim().replace(/\s+/g, " ");
  return line.length <= 60 ? line : `${line.slice(0, 58).replace(/\s+\S*$/, "")}…`;
}

/** All conversations that can be read, by id, and how many could not. Those are put aside. */
export function loadConversations() {
  const found = new Map();
  let damaged = 0;
  for (const key of keys().filter((key) => key.startsWith(PREFIX))) {
    const conversation = readConversation(key.slice(PREFIX.length));
    if (conversation) found.set(conversation.id, conversation);
    else {
      damaged += 1;
      move(key, DAMAGED + key.slice(PREFIX.length));
    }
  }
  return { found, damaged };
}

/** A stored conversation, null where there is none that can be read. */
export function readConversation(id) {
  try {
    const raw = JSON.parse(localStore().getItem(PREFIX + id));
    const turns = raw.turns
      .filter((turn) => typeof turn.question === "string" && turn.question.trim())
      .map((turn) => ({ question: turn.question, reply: restoredReply(turn.reply ?? null) }));
    if (!turns.length) return null;
    const title = typeof raw.title === "string" && raw.title.trim() ? raw.title : titleOf(turns[0].question);
    const updated = Number.isFinite(raw.updated) ? raw.updated : 0;
    return { id, title: title.slice(0, LONGEST_TITLE), updated, turns };
  } catch {
    return null;
  }
}

/** Keep a conversation. False where it cannot be kept. */
export function saveConversation({ id, title, updated, turns }) {
  return put(PREFIX + id, JSON.stringify({ title, updated, turns }));
}

export const removeConversation = (id) => attempt(() => localStore().removeItem(PREFIX + id));

/** Call back with the id of a conversation that another tab of this page changed or deleted. */
export function onChangeElsewhere(callback) {
  addEventListener("storage", ({ key }) => {
    if (key?.startsWith(PREFIX)) callback(key.slice(PREFIX.length));
  });
}

/** Settings; a number that is null is the server's to choose. */
export function loadSettings() {
  let raw = {};
  attempt(() => (raw = JSON.parse(localStore().getItem(SETTINGS)) ?? {}));
  const number = (name) => {
    const [low, high] = LIMITS[name];
    return Number.isFinite(raw[name]) && raw[name] >= low && raw[name] <= high ? raw[name] : null;
  };
  return {
    model: typeof raw.model === "string" ? raw.model : "",
    strategy: typeof raw.strategy === "string" ? raw.strategy : "auto",
    system: typeof raw.system === "string" ? raw.system : "",
    temperature: number("temperature"),
    seed: number("seed"),
    max_tokens: number("max_tokens"),
  };
}

export const saveSettings = (settings) => put(SETTINGS, JSON.stringify(settings));

/** Remember "light" or "dark", or with null the system's choice. */
export const saveTheme = (theme) => (theme ? put(THEME, theme) : attempt(() => localStore().removeItem(THEME)));

// Beside sessionStorage, for a browser that forbids it.
const session = new Map();

function sessionGet(name) {
  if (!session.has(name)) attempt(() => session.set(name, sessionStorage.getItem(name)));
  return session.get(name) ?? "";
}

function sessionSet(name, value) {
  session.set(name, value);
  attempt(() => (value ? sessionStorage.setItem(name, value) : sessionStorage.removeItem(name)));
}

export const apiKey = () => sessionGet(KEY);
export const saveApiKey = (key) => sessionSet(KEY, key);
export const currentId = () => sessionGet(CURRENT);
export const saveCurrentId = (id) => sessionSet(CURRENT, id);

const localStore = () => window.localStorage; // the getter itself throws where storage is forbidden

function keys() {
  try {
    const storage = localStore();
    return Array.from({ length: storage.length }, (_, index) => storage.key(index));
  } catch {
    return [];
  }
}

function attempt(action) {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

/** Store a value; where there is no room, what was put aside as damaged makes way. */
function put(key, value) {
  if (attempt(() => localStore().setItem(key, value))) return true;
  attempt(() => keys().filter((one) => one.startsWith(DAMAGED)).forEach((one) => localStore().removeItem(one)));
  return attempt(() => localStore().setItem(key, value));
}

function move(from, to) {
  attempt(() => {
    const value = localStore().getItem(from);
    localStore().removeItem(from); // first, since there may not be room for both
    localStore().setItem(to, value);
  });
}
