// One request by the official client of x402 version 2 for axios. See README.md for the options.
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { decodePaymentResponseHeader, wrapAxiosWithPaymentFromConfig } from "@x402/axios";
import axios from "axios";
import { privateKeyToAccount } from "viem/accounts";
import { main, report } from "./lib.mjs";

await main(async ({ url, key, init }) => {
  let payment = null;
  const plain = axios.create({ responseType: "arraybuffer", transformRequest: [], validateStatus: (status) => status !== 402 });
  const pay = wrapAxiosWithPaymentFromConfig(plain, {
    schemes: [{ network: "eip155:*", client: new ExactEvmScheme(privateKeyToAccount(key)) }],
  });
  pay.interceptors.request.use((config) => {
    for (const name of ["payment-signature", "x-payment"]) {
      const value = config.headers.get(name);
      if (value) payment = { name, value };
    }
    return config;
  });
  const sent = { url, method: init.method, headers: init.headers, data: init.body };
  const answer = await pay.request(sent).catch((error) => {
    if (error.response) return error.response;
    throw error;
  });
  const response = new Response(answer.data, { status: answer.status, headers: answer.headers.toJSON() });
  await report(response, payment, decodePaymentResponseHeader);
});
