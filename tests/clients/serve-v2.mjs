// A shop on the official middleware of version 2. See README.md for the options.
import { createServer } from "node:http";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import express from "express";
import { readOptions, required, serve, shop } from "./serve.mjs";

const options = readOptions(["facilitator", "pay-to", "price"]);
const facilitator = new HTTPFacilitatorClient({ url: required(options, "facilitator") });
const resources = new x402ResourceServer(facilitator).register("eip155:84532", new ExactEvmScheme());
const accepts = {
  scheme: "exact",
  network: "eip155:84532",
  price: options.price ?? "$0.001",
  payTo: required(options, "pay-to"),
};
const app = express();
const sell = shop(app, express.json());
const route = { accepts, description: "Work", mimeType: "application/json" };
app.use(paymentMiddleware({ "GET /work": route, "POST /work": route }, resources));
sell();
serve(createServer(app));
