// What the page says about the server: a line below the question, and a banner where something is wrong.

import { announce, byId, setText } from "./dom.js";
import { explained } from "./view.js";

const STATES = { connecting: "connecting", unreachable: "not reachable", key: "key wanted", refused: "refused" };
let before = "connecting";

export function showServer({ state, health, error }) {
  const trouble = {
    unreachable: `The server at ${location.host} does not answer. Trying again …`,
    key: "The server wants its API key.",
    refused: `${error ? explained(error) : ""} Trying again …`,
  }[state];
  byId("state").dataset.state = state;
  setText(byId("state"), STATES[state] ?? busy(health));
  setText(byId("memory"), memory(health));
  byId("connection").hidden = !trouble;
  setText(byId("connection-text"), trouble ?? "");
  setText(byId("connection-action"), state === "key" ? "Enter the key" : "Try now");
  if (state === before || state === "connecting") return;
  if (trouble) announce(trouble);
  else if (before !== "connecting") announce("The server answers again.");
  before = state;
}

const busy = (health) => (health?.waiting > 0 ? `${health.waiting} waiting` : "ready");

function memory(health) {
  const device = typeof health?.device === "string" ? health.device : "";
  const megabytes = health?.memory_mb;
  if (typeof megabytes !== "number") return device;
  const amount = megabytes < 10_000 ? `${Math.round(megabytes)} MB` : `${(megabytes / 1000).toFixed(1)} GB`;
  return device ? `${amount} on ${device}` : amount;
}
