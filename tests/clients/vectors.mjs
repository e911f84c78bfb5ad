// Makes vectors/payments.json: what both official clients answer to vectors/challenge.json, which is
// served as the gateway serves it: version 2 in the header and version 1 in the body of one 402.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { promisify } from "node:util";

const here = new URL("./", import.meta.url);
const file = (path) => new URL(path, here);

// A key that has been public since development chains exist (the second account of "test ... junk").
const KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const RECEIPT = { success: true, transaction: `0x${"ab".repeat(32)}`, network: "eip155:84532" };

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64");

function stub(challenge) {
  return createServer((request, response) => {
    request.resume();
    const paid = request.headers["payment-signature"] ?? request.headers["x-payment"];
    response.setHeader("content-type", "application/json");
    if (paid) {
      const name = request.headers["payment-signature"] ? "payment-response" : "x-payment-response";
      response.setHeader(name, base64(RECEIPT));
      response.end('{"ok":true}');
    } else {
      response.statusCode = 402;
      response.setHeader("payment-required", base64(challenge.v2));
      response.end(JSON.stringify(challenge.v1));
    }
  });
}

async function pay(program, port) {
  const url = `http://127.0.0.1:${port}/run`;
  const request = ["--url", url, "--key", KEY, "--method", "POST"];
  const body = ["--body", '{"code":"1"}', "--content-type", "application/json"];
  const options = ["--import", file("frozen.mjs").pathname, file(program).pathname, ...request, ...body];
  const { stdout } = await promisify(execFile)(process.execPath, options);
  const answer = JSON.parse(stdout);
  if (answer.status !== 200 || !answer.receipt?.success || !answer.body.ok) {
    throw new Error(`${program} did not pay: ${stdout}`);
  }
  return answer.payment;
}

const challenge = JSON.parse(await readFile(file("vectors/challenge.json"), "utf8"));
const server = stub(challenge);
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const { port } = server.address();
const payments = { v1: await pay("pay-v1.mjs", port), v2: await pay("pay-v2.mjs", port) };
server.close();
server.closeAllConnections();

const text = `${JSON.stringify(payments, null, 2)}\n`;
if (process.argv.includes("--check")) {
  if (text !== (await readFile(file("vectors/payments.json"), "utf8"))) {
    console.error("vectors/payments.json is not what the clients make now");
    process.exit(1);
  }
} else {
  await writeFile(file("vectors/payments.json"), text);
}
