// How a turn of the conversation looks: the question, the plan with its values, the answer, and what to do with it.
//
// A view is built once and then brought up to date in place, so that while an answer is written nothing flickers and
// a selection stays.

import { button, copy, el, icon, announce, setText } from "./dom.js";
import { markdown } from "./markdown.js";
import { inWords, isEmpty, lastAttempt, rows, speed } from "./reply.js";

const SHORT = 90; // characters of an answer that is shown large beneath a plan

export class TurnView {
  /** `actions.retry` asks anew, `actions.enterKey` opens the settings. */
  constructor(turn, number, actions) {
    this.turn = turn;
    this.actions = actions;
    this.attempts = [];
    this.body = el("div", { class: "body" });
    this.working = el("p", { class: "working" }, el("span", { class: "dots", "aria-hidden": "true" }), el("span"));
    this.foot = el("div", { class: "foot" });
    this.shownFoot = "";
    this.element = el(
      "article",
      { class: "turn", "aria-labelledby": `turn-${number}` },
      el("h2", { class: "hidden", id: `turn-${number}` }, `Question ${number}`),
      el("div", { class: "asked", dir: "auto" }, turn.question),
      this.body,
      this.working,
      this.foot,
    );
  }

  /** Bring it up to date. `last` says whether it is the conversation's last turn. */
  update(last) {
    const { reply } = this.turn;
    const running = reply?.state === "running";
    if (this.reply !== reply) {
      this.reply = reply; // a retry begins from nothing
      this.attempts = [];
      this.body.replaceChildren();
    }
    const attempts = reply?.attempts ?? [];
    attempts.forEach((attempt, index) => {
      const givenUp = index < attempts.length - 1;
      if (!this.attempts[index]) {
        this.attempts[index] = new AttemptView();
        this.body.append(this.attempts[index].element);
      }
      this.attempts[index].update(attempt, running && !givenUp, givenUp);
    });
    this.element.setAttribute("aria-busy", String(running));
    this.working.hidden = !running;
    if (running) setText(this.working.lastChild, `${doing(lastAttempt(reply))} …`);
    this.#updateFoot(running, last);
  }

  #updateFoot(running, last) {
    const state = `${running} ${last} ${this.reply?.state}`;
    if (state === this.shownFoot) return;
    this.shownFoot = state;
    this.foot.replaceChildren();
    if (running || !this.reply) {
      if (!running && last) this.foot.append(this.#tools(true));
      return;
    }
    this.foot.append(...remarks(this.reply, this.actions), this.#tools(last));
  }

  #tools(last) {
    const tools = el("div", { class: "foot-tools" });
    if (this.reply && inWords(this.reply)) {
      const copying = button({ class: "icon", "aria-label": "Copy the answer", title: "Copy" }, async () => {
        const copied = await copy(inWords(this.reply));
        announce(copied ? "Copied." : "This browser does not let the page copy.");
        if (!copied) return;
        copying.replaceChildren(icon("done"));
        setTimeout(() => copying.replaceChildren(icon("copy")), 1500);
      });
      copying.append(icon("copy"));
      tools.append(copying);
    }
    if (last) {
      const retry = button({ class: "icon", "aria-label": "Answer anew", title: "Answer anew" }, this.actions.retry);
      retry.append(icon("retry"));
      tools.append(retry);
    }
    if (this.reply?.solution) tools.append(how(this.reply));
    return tools;
  }
}

/** One attempt: the plan, the program, the answer. One that was given up is folded away and struck through. */
class AttemptView {
  constructor() {
    this.plan = new PlanView();
    this.program = el("pre", { tabindex: "0" }, el("code"));
    this.programSection = el("section", { class: "program" }, el("h3", {}, "Program"), this.program);
    this.answerTitle = el("h3", {}, "Answer");
    this.answer = el("div", { class: "prose" });
    this.answerSection = el("section", { class: "answer" }, this.answerTitle, this.answer);
    this.shownAnswer = "";
    this.content = el("div", { class: "attempt" }, this.programSection, this.plan.element, this.answerSection);
    this.element = el("div", {}, this.content);
  }

  update(attempt, running, givenUp) {
    this.plan.update(attempt, running);
    this.programSection.hidden = !attempt.program;
    setText(this.program.firstChild, attempt.program);
    this.answerSection.hidden = !attempt.answer;
    const worked = Boolean(attempt.plan || attempt.program || attempt.steps.length);
    this.answerTitle.classList.toggle("hidden", !worked);
    this.answerSection.classList.toggle("result", worked);
    this.answer.classList.toggle("short", worked && attempt.answer.length < SHORT);
    if (this.shownAnswer !== attempt.answer) {
      this.shownAnswer = attempt.answer;
      this.answer.replaceChildren(markdown(attempt.answer));
    }
    if (givenUp) this.#fold(attempt);
  }

  #fold(attempt) {
    const [first, ...more] = attempt.note.split("\n");
    if (!this.summary) {
      this.summary = el("span", { dir: "auto" });
      this.more = el("p", { class: "note", dir: "auto" });
      const said = [el("span", { class: "tag" }, "Given up"), this.summary];
      const folded = isEmpty(attempt)
        ? el("p", { class: "abandoned" }, ...said)
        : el("details", { class: "abandoned" }, el("summary", {}, ...said), this.content);
      this.element.replaceChildren(folded, this.more);
    }
    setText(this.summary, first);
    setText(this.more, more.join("\n"));
    this.more.hidden = !more.length;
  }
}

/** The plan as a numbered list, each step with its expression and its value. */
class PlanView {
  constructor() {
    this.title = el("h3", {}, "Plan");
    this.list = el("ol", { role: "list" });
    this.element = el("section", { class: "plan" }, this.title, this.list);
    this.steps = [];
  }

  update(attempt, running) {
    const all = rows(attempt, running);
    this.element.hidden = !all.length;
    setText(this.title, attempt.program ? "Computed exactly" : "Plan");
    while (this.steps.length > all.length) this.steps.pop().element.remove();
    all.forEach((row, index) => {
      if (!this.steps[index]) {
        this.steps[index] = new StepView();
        this.list.append(this.steps[index].element);
      }
      this.steps[index].update(row);
    });
  }
}

class StepView {
  constructor() {
    this.words = el("span", { class: "words", dir: "auto" });
    this.expression = el("code", { class: "expression" });
    this.equals = el("span", { class: "equals" }, " = ");
    this.value = el("strong", { class: "value" });
    this.sum = el("span", { class: "sum", dir: "ltr" }, this.expression, this.equals, this.value);
    this.element = el("li", { class: "step" }, this.words, " ", this.sum);
  }

  update(row) {
    this.element.dataset.state = row.state;
    setText(this.words, row.text);
    setText(this.expression, row.expression ?? "");
    setText(this.value, row.value ?? "");
    this.expression.hidden = row.expression === null || row.expression === row.value; // "525 = 525" says nothing
    this.equals.hidden = row.value === null;
    this.value.hidden = row.value === null;
    this.sum.hidden = row.expression === null && row.state !== "active";
  }
}

/** What is being done, for those who wait. */
function doing(attempt) {
  if (attempt.answer) return "Writing the answer";
  if (attempt.steps.length) return `Working on step ${attempt.steps.length}`;
  if (attempt.program) return "Writing the program";
  if (attempt.plan) return "Writing the plan";
  return "Reading the question";
}

/** What is to be said about a reply that is over. */
function remarks(reply, actions) {
  const told = reply.forgotten === 1 ? "The oldest turn no longer fits before the model and is" : `The oldest ${reply.forgotten} turns no longer fit before the model and are`;
  const full = reply.forgotten ? [el("p", { class: "remark" }, `${told} left out.`)] : [];
  return [...full, ...ends(reply, actions)];
}

function ends(reply, actions) {
  if (reply.state === "stopped") return [el("p", { class: "remark" }, "Stopped.")];
  if (reply.state === "failed") {
    const line = el("p", { class: "error", dir: "auto" }, explained(reply.error));
    if (reply.error.status === 401) line.append(" ", button({ class: "link" }, actions.enterKey, "Enter the key"));
    return [line];
  }
  if (reply.solution?.truncated) {
    return [el("p", { class: "remark" }, "Cut off at the limit on tokens. The settings have a larger one.")];
  }
  if (isEmpty(lastAttempt(reply))) return [el("p", { class: "remark" }, "The model wrote nothing.")];
  return [];
}

/** An error as a line for people. */
export function explained({ status, message, retryAfter }) {
  if (status === 401) return "The server wants its API key.";
  if (status === 429 && retryAfter) {
    return `The server is busy. Try again in ${retryAfter} ${retryAfter === 1 ? "second" : "seconds"}.`;
  }
  const lead = LEADS[status] ?? (status ? "The server refused: " : "");
  return lead + (/[.!?…]$/.test(message) ? message : `${message}.`);
}

const LEADS = {
  413: "This is too long for the server: ",
  429: "The server is busy: ",
  500: "The server failed: ",
  503: "The server cannot answer now: ",
  504: "The server took too long: ",
};

/** How a reply came about: the strategy and the speed, and more when opened. */
function how(reply) {
  const { solution, usage, asked } = reply;
  const rate = speed(reply);
  const ways = [...new Set([solution.strategy, solution.solved_by])].filter(Boolean).join(", then ");
  const short = [ways, rate === null ? "" : tokensPerSecond(rate)].filter(Boolean).join(" · ");
  const seconds = solution.seconds === null ? null : `${solution.seconds.toFixed(solution.seconds < 10 ? 1 : 0)} s`;
  const [written, read] = [usage?.completion_tokens, usage?.prompt_tokens];
  const tokens = written == null ? null : `${written} written, ${read ?? "?"} read`;
  const facts = [
    ["Model", asked.model],
    ["Strategy", [ways, solution.why].filter(Boolean).join(": ")],
    ["Tokens", tokens],
    ["Time", seconds],
  ].filter(([, fact]) => fact);
  const lines = facts.map(([name, fact]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, fact)));
  return el("details", { class: "how" }, el("summary", {}, short || "How"), el("dl", {}, ...lines));
}

export const tokensPerSecond = (rate) => `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`;
