// What the programs that serve share: a free port on loopback, one line of JSON that says where, and an end as soon as
// standard input ends, so that none outlives the test that started it. No payment code in here.
import { parseArgs } from "node:util";

export function readOptions(names) {
  const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
  const { values } = parseArgs({ options });
  return values;
}

export function required(values, name) {
  if (!values[name]) throw new Error(`--${name} is missing`);
  return values[name];
}

export function serve(server) {
  server.listen(0, "127.0.0.1", () => {
    process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` })}\n`);
  });
  process.stdin.resume();
  process.stdin.on("end", () => process.exit());
}

// The work that both shops sell at /work: what was sent, and how often it was done. Free: /done, how often.
export function shop(app, json) {
  let done = 0;
  app.use(json);
  app.get("/done", (_, response) => response.json({ done }));
  return () => {
    app.all("/work", (request, response) => {
      done += 1;
      response.json({ done, method: request.method, query: request.query, body: request.body ?? null });
    });
  };
}
