// One request by the official client of x402 version 2. See README.md for the options.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { decodePaymentResponseHeader, wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { privateKeyToAccount } from "viem/accounts";
import { main, recordingFetch, report } from "./lib.mjs";

// What `@x402/extensions` does for `payment-identifier`, where the server declared it.
const named = (id) => ({
  key: "payment-identifier",
  enrichPaymentPayload: async (payload, { extensions }) => {
    const declared = extensions?.["payment-identifier"];
    if (typeof declared?.info?.required !== "boolean") return payload;
    const extension = { ...declared, info: { ...declared.info, id } };
    return { ...payload, extensions: { ...payload.extensions, "payment-identifier": extension } };
  },
});

await main(async ({ url, key, paymentId, init }) => {
  const { record, fetch } = recordingFetch();
  const client = x402Client.fromConfig({
    schemes: [{ network: "eip155:*", client: new ExactEvmScheme(privateKeyToAccount(key)) }],
  });
  if (paymentId) client.registerExtension(named(paymentId));
  const response = await wrapFetchWithPayment(fetch, client)(url, init);
  await report(response, record.payment, decodePaymentResponseHeader);
});
