// What both programs share: arguments in, one line of JSON out. No payment code in here.
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";

export async function readArguments() {
  const { values } = parseArgs({
    options: {
      url: { type: "string" },
      key: { type: "string" },
      "key-file": { type: "string" },
      method: { type: "string", default: "GET" },
      body: { type: "string" },
      "content-type": { type: "string" },
      header: { type: "string", multiple: true, default: [] },
      "payment-id": { type: "string" },
      network: { type: "string", default: "base-sepolia" },
    },
  });
  if (!values.url) throw new Error("--url is missing");
  const key = values["key-file"] ? (await readFile(values["key-file"], "utf8")).trim() : values.key;
  if (!key) throw new Error("--key or --key-file is missing");
  const headers = {};
  if (values["content-type"]) headers["content-type"] = values["content-type"];
  for (const line of values.header) {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Error(`--header ${line}: no colon`);
    headers[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
  }
  const init = { method: values.method, headers };
  if (values.body?.startsWith("@")) init.body = await readFile(values.body.slice(1));
  else if (values.body !== undefined) init.body = values.body;
  return { url: values.url, key, network: values.network, paymentId: values["payment-id"], init };
}

// `fetch`, and what was sent with it: the payment header of the last request that had one.
export function recordingFetch() {
  const record = { payment: null };
  const recording = (input, init) => {
    const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
    for (const name of ["payment-signature", "x-payment"]) {
      const value = headers.get(name);
      if (value) record.payment = { name, value };
    }
    return fetch(input, init);
  };
  return { record, fetch: recording };
}

export async function report(response, payment, decodeReceipt) {
  const { headers } = response;
  const receipt = headers.get("payment-response") ?? headers.get("x-payment-response");
  const text = await response.text();
  let body = text;
  if (/[/+]json/.test(headers.get("content-type") ?? "")) {
    try {
      body = JSON.parse(text);
    } catch {}
  }
  print({
    status: response.status,
    headers: Object.fromEntries(headers),
    receipt: receipt ? decodeReceipt(receipt) : null,
    payment,
    body,
  });
}

export async function main(run) {
  try {
    await run(await readArguments());
  } catch (error) {
    const cause = error.cause?.message ? ` (${error.cause.message})` : "";
    print({ error: `${error.message}${cause}` });
    process.exitCode = 1;
  }
}

function print(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
