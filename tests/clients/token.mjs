// Compiles the contracts of token/ for the test chain. Prints where their creation code is: a file that is made again
// only when a source or the compiler changed. It is no part of the tree, so it cannot disagree with its source.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const here = new URL("./", import.meta.url);
const artifact = new URL("node_modules/.cache/galaksio-token.json", here);

const names = (await readdir(new URL("token/", here))).filter((name) => name.endsWith(".sol")).sort();
const sources = {};
const digest = createHash("sha256");
for (const file of ["token.mjs", "package-lock.json", ...names.map((name) => `token/${name}`)]) {
  const content = await readFile(new URL(file, here), "utf8");
  digest.update(`${file}\0${content.length}\0${content}`);
  if (file.endsWith(".sol")) sources[file] = { content };
}
const source = digest.digest("hex");

async function isFresh() {
  try {
    return JSON.parse(await readFile(artifact, "utf8")).source === source;
  } catch {
    return false;
  }
}

function compile() {
  const solc = require("solc");
  const { readFileSync } = require("node:fs");
  const settings = {
    evmVersion: "cancun",
    optimizer: { enabled: true, runs: 200 },
    outputSelection: { "*": { "*": ["evm.bytecode.object"] } },
  };
  const input = { language: "Solidity", sources, settings };
  const find = (path) => ({ contents: readFileSync(require.resolve(path), "utf8") });
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: find }));
  const problems = output.errors ?? [];
  if (problems.length > 0) throw new Error(problems.map((problem) => problem.formattedMessage).join("\n"));
  const creation = {};
  for (const contracts of Object.keys(sources).map((file) => output.contracts[file])) {
    for (const [name, contract] of Object.entries(contracts)) creation[name] = `0x${contract.evm.bytecode.object}`;
  }
  return creation;
}

if (!(await isFresh())) {
  const { multicall3Bytecode } = await import(new URL("node_modules/viem/_esm/constants/contracts.js", here));
  const creation = { ...compile(), Multicall3: multicall3Bytecode };
  await mkdir(new URL("./", artifact), { recursive: true });
  const half = new URL(`galaksio-token.${process.pid}.json`, artifact);
  await writeFile(half, JSON.stringify({ source, creation }));
  await rename(half, artifact);
}
console.log(artifact.pathname);
