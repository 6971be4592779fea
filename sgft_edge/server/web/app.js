// The page: conversations, asking, and what the keys do.

import { answer } from "./api.js";
import { showChoices } from "./choices.js";
import "./colours.js";
import { Connection } from "./connection.js";
import { askDelete, askSettings, askTitle } from "./dialogs.js";
import { announce, byId, setText } from "./dom.js";
import { fold, inWords, isUntouched, newReply, speed } from "./reply.js";
import { drawer, drawerIsOpen, showList } from "./sidebar.js";
import { showServer } from "./status.js";
import * as store from "./store.js";
import { TurnView, explained, tokensPerSecond } from "./view.js";

const NEAR = 90; // pixels from the end of the conversation within which the page follows what is written
const ANEW = 0.7; // the temperature of another try where the settings name none: at 0 the text would be the same

const question = byId("question");
const log = byId("log");
const { found: conversations, damaged } = store.loadConversations();
const runs = new Map(); // by a conversation's id: what is being answered, and how to stop it
let settings = store.loadSettings();
let current = conversations.get(store.currentId()) ?? store.newConversation();
let views = [];

// Conversations

function open(conversation) {
  current = conversation;
  store.saveCurrentId(conversation.id);
  views = [];
  byId("turns").replaceChildren();
  conversation.turns.forEach(add);
  show();
  log.scrollTop = log.scrollHeight;
}

function add(turn) {
  const view = new TurnView(turn, views.length + 1, { retry, enterKey: () => changeSettings("key") });
  views.push(view);
  byId("turns").append(view.element);
}

function startAnew() {
  drawer(false);
  open(store.newConversation());
  question.focus();
}

/** Bring the whole page in line with what it holds. */
function show() {
  const title = current.title || "New conversation";
  setText(byId("title"), title);
  document.title = current.title ? `${title} – sgft-edge` : "sgft-edge";
  byId("welcome").hidden = current.turns.length > 0;
  byId("none-kept").hidden = conversations.size > 0;
  views.forEach((view, index) => view.update(index === views.length - 1));
  showList(conversations.values(), current, runs, {
    open(conversation) {
      open(conversation);
      drawer(false);
    },
    rename,
    remove,
  });
  showControls();
}

async function rename(conversation) {
  const title = await askTitle(conversation.title);
  if (!title) return;
  conversation.title = title;
  save(conversation);
  show();
}

async function remove(conversation) {
  if (!(await askDelete(conversation.title))) return;
  const run = runs.get(conversation.id);
  conversations.delete(conversation.id);
  run?.stop();
  store.removeConversation(conversation.id);
  announce("Deleted.");
  if (conversation === current) open(store.newConversation());
  else show();
  (drawerIsOpen() ? byId("new") : question).focus();
  for (const other of conversations.values()) if (other.unsaved) save(other); // there may be room now
}

function save(conversation) {
  conversation.unsaved = !store.saveConversation(conversation);
  if (!conversation.unsaved) return;
  const remedy = "Deleting another one makes room.";
  notice(`This browser has no room to keep the conversation: it is gone when the page is closed. ${remedy}`);
}

store.onChangeElsewhere((id) => {
  if (runs.has(id)) return; // what is written here will be kept over it
  const changed = store.readConversation(id);
  if (changed) conversations.set(id, changed);
  else conversations.delete(id);
  if (id === current.id && changed) open(changed);
  else show();
});

// Asking

function ask() {
  const text = question.value.trim();
  if (!text || runs.has(current.id) || !connection.models.length) return;
  question.value = "";
  fitQuestion();
  const turn = { question: text, reply: null };
  current.turns.push(turn);
  current.title ||= store.titleOf(text);
  add(turn);
  begin(turn, 0);
}

/** Answer the last question anew. The same settings would bring the same text again: then with another seed. */
function retry() {
  const turn = current.turns.at(-1);
  if (!turn || runs.has(current.id) || !connection.models.length) return;
  const before = turn.reply?.state === "done" ? turn.reply.asked : null;
  const same = before && ["model", "strategy", "temperature", "seed"].every((name) => before[name] === settings[name]);
  begin(turn, same ? before.tries + 1 : 0);
}

function begin(turn, tries) {
  respond(current, turn, tries);
  show();
  log.scrollTop = log.scrollHeight;
  question.focus();
}

/** The turns before one that have an answer. */
function answered(conversation, turn) {
  const before = conversation.turns.slice(0, conversation.turns.indexOf(turn));
  return before.filter(({ reply }) => reply && inWords(reply));
}

/** What the server is to read: every question that has an answer but the oldest ones, and the one that is asked. */
function messages(conversation, turn, forgotten) {
  return [
    ...(settings.system ? [{ role: "system", content: settings.system }] : []),
    ...answered(conversation, turn).slice(forgotten).flatMap((one) => [
      { role: "user", content: one.question },
      { role: "assistant", content: inWords(one.reply) },
    ]),
    { role: "user", content: turn.question },
  ];
}

async function respond(conversation, turn, tries) {
  const { model, strategy, temperature, seed, max_tokens } = settings;
  const reply = newReply({ model, strategy, temperature, seed, tries });
  const abort = new AbortController();
  const run = { reply, stop: () => abort.abort() };
  runs.set(conversation.id, run);
  conversations.set(conversation.id, conversation); // a new one, or one that another tab deleted
  turn.reply = reply;
  conversation.updated = Date.now();
  save(conversation);
  announce("Being answered.");
  const sampling = { temperature, seed, max_tokens };
  if (tries) Object.assign(sampling, { temperature: temperature ?? ANEW, seed: ((seed ?? 0) + tries) % 2 ** 32 });
  const given = Object.entries(sampling).filter(([, value]) => value !== null);
  const earlier = answered(conversation, turn);
  reply.forgotten = earlier.at(-1)?.reply.forgotten ?? 0;
  try {
    while (reply.state === "running") {
      const told = messages(conversation, turn, reply.forgotten);
      const request = { model, strategy, messages: told, ...Object.fromEntries(given) };
      try {
        for await (const event of answer(request, store.apiKey(), abort.signal)) {
          fold(reply, event);
          if (conversation === current) showSoon();
        }
        reply.state = "done";
      } catch (error) {
        const full = error.code === "context_length_exceeded" && isUntouched(reply);
        if (!full || reply.forgotten >= earlier.length) throw error;
        reply.forgotten += 1; // the oldest turn no longer fits before the model
      }
    }
  } catch (error) {
    if (abort.signal.aborted) reply.state = "stopped";
    else fail(reply, error);
  }
  runs.delete(conversation.id);
  if (!conversations.has(conversation.id)) return; // deleted meanwhile
  save(conversation);
  const stick = follows();
  show();
  if (conversation === current && stick) log.scrollTop = log.scrollHeight;
  announce(conversation === current ? outcome(reply) : `“${conversation.title}”: ${outcome(reply)}`);
}

function fail(reply, { message, status = 0, code = null, retryAfter = null }) {
  reply.state = "failed";
  reply.error = { message: String(message), status, code, retryAfter };
  if (code === "unreachable" || code === "broken") connection.look();
}

/** What a screen reader says when an answer is over. */
function outcome(reply) {
  if (reply.state === "stopped") return "Stopped.";
  return reply.state === "failed" ? explained(reply.error) : `Answer: ${inWords(reply) || "none"}`;
}

let awaited = false;

/** Show what came before the next frame, once for all of it. */
function showSoon() {
  if (awaited) return;
  awaited = true;
  requestAnimationFrame(() => {
    awaited = false;
    const stick = follows();
    views.at(-1)?.update(true); // the only one that can be under way
    if (stick) log.scrollTop = log.scrollHeight;
  });
}

const follows = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;

// Controls

function showControls() {
  const running = runs.has(current.id);
  const held = document.activeElement === byId("send") || document.activeElement === byId("stop");
  byId("send").hidden = running;
  byId("stop").hidden = !running;
  byId("send").disabled = !connection.models.length || !question.value.trim();
  if (held) question.focus(); // the button that had the focus may have gone
  const replies = current.turns.map((turn) => turn.reply).filter((reply) => speed(reply) !== null);
  setText(byId("speed"), replies.length ? tokensPerSecond(speed(replies.at(-1))) : "");
}

function fitQuestion() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
  showControls();
}

async function changeSettings(focusOn) {
  const changed = await askSettings(settings, focusOn);
  if (!changed) return;
  settings = changed.settings;
  if (!store.saveSettings(settings)) notice("This browser has no room to keep the settings.");
  if (changed.key === store.apiKey()) return;
  store.saveApiKey(changed.key);
  connection.renew();
}

function notice(text) {
  setText(byId("notice-text"), text);
  byId("notice").hidden = false;
  announce(text);
}

// The server

let offered = null;

const connection = new Connection(store.apiKey, (it) => {
  if (it.models !== offered && it.models.length) {
    offered = it.models;
    showChoices(it.models, settings);
  }
  showServer(it);
  showControls();
});

// Keys and clicks

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
question.addEventListener("input", fitQuestion);
question.addEventListener("keydown", (event) => {
  // keyCode 229: the Enter that accepts a word in an input method of Safari
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  ask();
});
byId("stop").addEventListener("click", () => runs.get(current.id)?.stop());
byId("new").addEventListener("click", startAnew);
byId("open-settings").addEventListener("click", () => changeSettings());
byId("notice-action").addEventListener("click", () => (byId("notice").hidden = true));
byId("connection-action").addEventListener("click", () => {
  if (connection.state === "key") changeSettings("key");
  else connection.look();
});
byId("examples").addEventListener("click", ({ target }) => {
  if (!(target instanceof HTMLButtonElement)) return;
  question.value = target.textContent;
  fitQuestion();
  question.focus();
  ask();
});
for (const id of ["model", "strategy"]) {
  byId(id).addEventListener("change", ({ target }) => {
    settings[id] = target.value;
    showChoices(connection.models, settings);
    store.saveSettings(settings);
  });
}
addEventListener("keydown", (event) => {
  if (event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (drawerIsOpen()) drawer(false);
    else runs.get(current.id)?.stop();
  } else if ((event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    startAnew();
  }
});
addEventListener("pagehide", () => {
  for (const [id, run] of runs) {
    run.stop();
    run.reply.state = "stopped";
    if (conversations.has(id)) store.saveConversation(conversations.get(id));
  }
});

// Begin

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const id of ["new-key", "settings-key"]) setText(byId(id), "⌘ K");
}
if (damaged === 1) notice("A conversation could not be read and is left out.");
else if (damaged) notice(`${damaged} conversations could not be read and are left out.`);
open(current);
fitQuestion();
connection.look();
