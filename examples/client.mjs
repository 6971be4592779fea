// Ask a running `sgft-edge serve` from JavaScript, and show plan and answer as they come.
// Usage: node examples/client.mjs [URL]   (Node 18 or newer; the same code runs in a browser)

const url = process.argv[2] ?? "http://127.0.0.1:8080";
const question = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?";

const response = await fetch(`${url}/v1/chat/completions`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ messages: [{ role: "user", content: question }], strategy: "exact", stream: true }),
});
if (!response.ok) throw new Error((await response.json()).error.message);

let rest = "";
for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + part).split("\n\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const chunk = JSON.parse(line.slice(6));
    if (chunk.error) throw new Error(chunk.error.message);
    const event = chunk.choices[0]?.delta.sgft;
    if (event && event.kind !== "solution") console.log(`${event.kind}: ${event.text}`);
    if (event?.kind === "solution") console.log(`solved by ${event.solved_by} in ${event.seconds} s: ${event.answer}`);
  }
}
