// The server's interface: what it offers, how it fares, and answers while they are written.

const PATIENCE = 10_000; // milliseconds for a short request

/** What went wrong, for people. `code` is "unreachable" or "broken" where no reply came or not all of it. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The models that can be asked, with their strategies. */
export async function models(key) {
  const reply = await short("v1/models", key);
  const named = (reply?.data ?? []).filter((model) => typeof model?.id === "string" && Array.isArray(model.strategies));
  if (!named.length) throw new ApiError("The server offers no models.");
  return named.map(({ id, strategies }) => ({ id, strategies: strategies.map(String) }));
}

/** How the server fares. */
export const health = () => short("health", "");

/**
 * The events of an answer: the runtime's own as {kind, text}, {kind: "solution", ...}, and at the end
 * {kind: "usage", prompt_tokens, completion_tokens}. Aborting the signal stops the server's work too.
 */
export async function* answer(request, key, signal) {
  const response = await reach("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", ...bearer(key) },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await refusal(response);
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") return;
    const chunk = parsed(data);
    if (chunk.error) throw new ApiError(String(chunk.error.message ?? "unknown"), { code: chunk.error.code });
    const event = chunk.choices?.[0]?.delta?.sgft;
    if (event) yield event;
    if (chunk.usage) yield { ...chunk.usage, kind: "usage" };
  }
  throw new ApiError("The connection broke off before the answer was whole.", { code: "broken" });
}

const bearer = (key) => (key ? { authorization: `Bearer ${key}` } : {});

async function short(path, key) {
  const signal = AbortSignal.timeout(PATIENCE);
  const response = await reach(path, { headers: bearer(key), cache: "no-store", signal });
  if (!response.ok) throw await refusal(response);
  return parsed(await response.text().catch(() => "")); // broken off: nothing that can be understood
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(`The server at ${location.host} does not answer.`, { code: "unreachable" });
  }
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object") return value;
  } catch {
    // said below
  }
  throw new ApiError("The server sent something that this page does not understand.");
}

/** An error status as an `ApiError`. */
async function refusal(response) {
  let error = {};
  try {
    error = JSON.parse(await response.text()).error ?? {};
  } catch {
    // no JSON, such as a proxy's page: the status has to do
  }
  const retryAfter = Number(response.headers.get("retry-after"));
  return new ApiError(String(error.message ?? (response.statusText || `status ${response.status}`)), {
    status: response.status,
    code: error.code ?? null,
    retryAfter: Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : null,
  });
}

/** The data of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
async function* eventData(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (!line && data.length) {
          yield data.join("\n");
          data = [];
        } // else a comment, with which the server shows that it is there
      }
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // else broken off: whoever reads misses the end
  } finally {
    reader.cancel().catch(() => {});
  }
}
