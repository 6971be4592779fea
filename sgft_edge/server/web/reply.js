// A reply as data: what the runtime's events add up to. It is what gets stored, and what `view.js` shows.
//
// A reply has attempts, of which all but the last were given up. An attempt has the plan's text, a program's text, the
// steps that were carried out, and the answer's text; `note` says why it was given up.

const MARKED = /^\s*(?:\*\*)?(?:step\s*\d{1,2}\s*[.):–—-]*|\(?\d{1,2}[.):]+(?!\d))(?:\*\*)?\s*/i;
const STATES = ["running", "done", "stopped", "failed"];

const newAttempt = () => ({ plan: "", program: "", steps: [], answer: "", note: "" });

/** A reply that is about to come. `asked` says of which model and how, `tries` in it how often before. */
export const newReply = (asked) => ({
  state: "running",
  asked,
  attempts: [newAttempt()],
  solution: null,
  usage: null,
  error: null,
  forgotten: 0, // turns before it that the model was not told
});

export const lastAttempt = (reply) => reply.attempts.at(-1);

/** Take one event in. Kinds that are not known, of a later server, are left out. */
export function fold(reply, event) {
  const attempt = lastAttempt(reply);
  const text = typeof event.text === "string" ? event.text : "";
  const step = attempt.steps.at(-1);
  if (event.kind === "guidance") attempt.plan += text;
  else if (event.kind === "program") attempt.program += text;
  else if (event.kind === "answer") attempt.answer += text;
  else if (event.kind === "step") attempt.steps.push({ text, expression: null, value: null });
  else if (event.kind === "expression" && step) step.expression = text;
  else if (event.kind === "value" && step) step.value = text;
  else if (event.kind === "note") giveUp(reply, text);
  else if (event.kind === "solution") conclude(reply, event);
  else if (event.kind === "usage") reply.usage = restoredUsage(event);
}

function giveUp(reply, note) {
  const attempt = lastAttempt(reply);
  const before = reply.attempts.at(-2);
  if (isEmpty(attempt) && before) before.note += `\n${note}`; // a second word on the same failure
  else {
    attempt.note = note;
    reply.attempts.push(newAttempt());
  }
}

function conclude(reply, event) {
  const attempt = lastAttempt(reply);
  reply.solution = restoredSolution(event);
  const steps = restoredSteps(event.steps);
  if (steps.length) attempt.steps = steps; // a program's steps are known only now
  // What an answer follows may stem from an attempt that was given up.
  const guidance = Array.isArray(event.guidance) ? event.guidance.filter((line) => typeof line === "string") : [];
  if (!attempt.plan && !attempt.steps.length) attempt.plan = numbered(guidance);
}

/** Whether nothing has come yet. */
export const isUntouched = ({ attempts }) => attempts.length === 1 && isEmpty(attempts[0]);

export const isEmpty = ({ plan, program, steps, answer }) => !plan && !program && !steps.length && !answer;

const numbered = (lines) => lines.map((line, index) => `${index + 1}. ${line}`).join("\n");

/**
 * The steps to show: the plan's lines, each with what was computed for it.
 *
 * `state` is "planned", "active" (its expression is being written), "done", or "words" (nothing was to be computed).
 */
export function rows(attempt, running) {
  const planned = lines(attempt.plan);
  const count = Math.max(attempt.steps.length, planned.length);
  return Array.from({ length: count }, (_, index) => {
    const step = attempt.steps[index];
    if (!step) return { text: planned[index], expression: null, value: null, state: "planned" };
    const last = index === attempt.steps.length - 1;
    const active = running && last && step.value === null && !attempt.answer;
    return { ...step, state: step.value !== null ? "done" : active ? "active" : "words" };
  });
}

/** A plan's steps without their numbers; a line without a number goes on with the step before. */
function lines(plan) {
  const all = plan.split("\n").filter((line) => line.trim());
  if (!all.some((line) => MARKED.test(line))) return all.map((line) => line.trim());
  const steps = [];
  for (const line of all) {
    if (MARKED.test(line)) steps.push(line.replace(MARKED, "").trim());
    else if (steps.length) steps[steps.length - 1] += ` ${line.trim()}`;
  }
  return steps;
}

/** The reply in words: what the next request says the assistant answered, and what is copied. */
export function inWords(reply) {
  const attempt = lastAttempt(reply);
  return attempt.answer.trim() || numbered(rows(attempt, false).map((row) => row.text));
}

/** Tokens a second, null where they are not known. */
export function speed(reply) {
  const tokens = reply?.usage?.completion_tokens;
  const seconds = reply?.solution?.seconds;
  return tokens > 0 && seconds > 0 ? tokens / seconds : null;
}

// What was stored may have been damaged or written by another version: only what has the right form is taken.

const textOr = (value, otherwise = "") => (typeof value === "string" ? value : otherwise);
const numberOr = (value, otherwise = null) => (Number.isFinite(value) ? value : otherwise);
const listOr = (value) => (Array.isArray(value) ? value.filter((one) => one !== null && typeof one === "object") : []);

export function restoredReply(raw) {
  if (raw === null || typeof raw !== "object") return null;
  const attempts = listOr(raw.attempts).map((one) => ({
    plan: textOr(one.plan),
    program: textOr(one.program),
    steps: restoredSteps(one.steps),
    answer: textOr(one.answer),
    note: textOr(one.note),
  }));
  const state = STATES.includes(raw.state) ? raw.state : "stopped";
  const asked = raw.asked ?? {};
  return {
    state: state === "running" ? "stopped" : state, // the page was closed in the middle
    asked: {
      model: textOr(asked.model),
      strategy: textOr(asked.strategy),
      temperature: numberOr(asked.temperature),
      seed: numberOr(asked.seed),
      tries: numberOr(asked.tries, 0),
    },
    attempts: attempts.length ? attempts : [newAttempt()],
    solution: raw.solution !== null && typeof raw.solution === "object" ? restoredSolution(raw.solution) : null,
    usage: raw.usage !== null && typeof raw.usage === "object" ? restoredUsage(raw.usage) : null,
    error: state === "failed" ? restoredError(raw.error ?? {}) : null,
    forgotten: Math.max(0, Math.trunc(numberOr(raw.forgotten, 0))),
  };
}

const restoredSteps = (steps) =>
  listOr(steps).map(({ text, expression, value }) => ({
    text: textOr(text),
    expression: textOr(expression, null),
    value: textOr(value, null),
  }));

const restoredSolution = (raw) => ({
  strategy: textOr(raw.strategy),
  solved_by: textOr(raw.solved_by),
  why: textOr(raw.why),
  answer: textOr(raw.answer, null),
  seconds: numberOr(raw.seconds),
  truncated: raw.truncated === true,
});

const restoredUsage = (raw) => ({
  prompt_tokens: numberOr(raw.prompt_tokens),
  completion_tokens: numberOr(raw.completion_tokens),
});

const restoredError = (raw) => ({
  message: textOr(raw.message, "Something went wrong."),
  status: numberOr(raw.status, 0),
  code: textOr(raw.code, null),
  retryAfter: numberOr(raw.retryAfter),
});
