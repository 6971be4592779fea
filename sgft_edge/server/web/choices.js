// The choice of a model and of a strategy.

import { byId, el } from "./dom.js";

const STRATEGIES = {
  auto: "Automatic",
  chat: "Chat",
  direct: "Direct: the answer alone",
  cot: "Step by step",
  plan: "Plan and solve",
  calc: "Step by step, equations computed",
  panel: "In several ways, until two agree",
  program: "Program, computed exactly",
  sg: "Guided: plan, then answer",
  exact: "Exact: plan, then values",
  guidance: "Plan only",
};

/** Offer the models and the strategies of the one that is chosen; where the settings name others, the first ones. */
export function showChoices(models, settings) {
  const named = models.map(({ id }) => [id, id]);
  settings.model = offer(byId("model"), named, settings.model);
  const { strategies } = models.find(({ id }) => id === settings.model);
  const labelled = (strategies.length ? strategies : ["auto"]).map((name) => [name, STRATEGIES[name] ?? name]);
  settings.strategy = offer(byId("strategy"), labelled, settings.strategy);
}

function offer(select, options, wanted) {
  select.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
  select.disabled = false;
  select.value = options.some(([value]) => value === wanted) ? wanted : options[0][0];
  return select.value;
}
