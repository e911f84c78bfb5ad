// The official facilitator, versions 1 and 2, over HTTP. See README.md for the options.
import { createServer } from "node:http";
import { json as readJson } from "node:stream/consumers";
import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { createWalletClient, http, publicActions } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";
import { readOptions, required, serve } from "./serve.mjs";

const options = readOptions(["rpc", "key", "factory"]);
// Without its nonce manager viem gives concurrent transactions the same nonce.
const account = privateKeyToAccount(required(options, "key"), { nonceManager });
const transport = http(required(options, "rpc"));
const client = createWalletClient({ account, chain: baseSepolia, transport }).extend(publicActions);
const facilitator = registerExactEvmScheme(new x402Facilitator(), {
  signer: toFacilitatorEvmSigner({ ...client, address: account.address }),
  networks: "eip155:84532",
  eip6492AllowedFactories: options.factory ? [options.factory] : [],
});

const server = createServer(async (request, response) => {
  const answer = (status, value) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
  try {
    const operation = `${request.method} ${request.url}`;
    if (operation === "GET /supported") return answer(200, facilitator.getSupported());
    if (operation !== "POST /verify" && operation !== "POST /settle") return answer(404, { error: "not found" });
    const { paymentPayload, paymentRequirements } = await readJson(request);
    const run = request.url === "/verify" ? facilitator.verify : facilitator.settle;
    return answer(200, await run.call(facilitator, paymentPayload, paymentRequirements));
  } catch (error) {
    return answer(500, { error: error.message });
  }
});
serve(server);
