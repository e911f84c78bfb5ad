// One request by the legacy client of x402 version 1. See README.md for the options.
import { createSigner, decodeXPaymentResponse, wrapFetchWithPayment } from "x402-fetch";
import { main, recordingFetch, report } from "./lib.mjs";

await main(async ({ url, key, network, init }) => {
  const { record, fetch } = recordingFetch();
  const pay = wrapFetchWithPayment(fetch, await createSigner(network, key));
  const response = await pay(url, init);
  await report(response, record.payment, decodeXPaymentResponse);
});
