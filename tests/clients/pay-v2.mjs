// One request by the official client of x402 version 2. See README.md for the options.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { main, recordingFetch, report } from "./lib.mjs";

await main(async ({ url, key, init }) => {
  const { record, fetch } = recordingFetch();
  const pay = wrapFetchWithPaymentFromConfig(fetch, {
    schemes: [{ network: "eip155:*", client: new ExactEvmScheme(privateKeyToAccount(key)) }],
  });
  const response = await pay(url, init);
  await report(response, record.payment, decodePaymentResponseHeader);
});
