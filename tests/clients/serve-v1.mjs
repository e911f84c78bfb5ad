// A shop on the legacy middleware of version 1. See README.md for the options.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { paymentMiddleware } from "x402-express";
import { readOptions, required, serve, shop } from "./serve.mjs";

// The express it was made for, which is not the newest.
const express = createRequire(import.meta.resolve("x402-express"))("express");

const options = readOptions(["facilitator", "pay-to", "price"]);
const route = {
  price: options.price ?? "$0.001",
  network: "base-sepolia",
  config: { description: "Work", mimeType: "application/json" },
};
const app = express();
const sell = shop(app, express.json());
const facilitator = { url: required(options, "facilitator") };
app.use(paymentMiddleware(required(options, "pay-to"), { "GET /work": route, "POST /work": route }, facilitator));
sell();
serve(createServer(app));
