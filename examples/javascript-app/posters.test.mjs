// Tests of the posters: without a key, a network or money.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PosterRefused, PosterUnknown, changePoster, connect, makePoster, watchPoster } from "./posters.mjs";

const MASK = fileURLToPath(new URL("mask.png", import.meta.url)); // transparent in its middle
const FAIR = { title: "book fair", town: "Oslo" };
const PNG = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");

const children = [];
const apis = [];
let painter; // the address of a server that paints offline
let folder;

/** Start `imgkit serve` on a free port, and return its address, which is its first line. */
async function serve(...options) {
  const child = spawn("imgkit", ["serve", "--port", "0", ...options], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, OPENAI_API_KEY: "sk-example" },
  });
  children.push(child);
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  return `${line.match(/http:\/\/\S+/)[0].replace(/\/$/, "")}/v1`;
}

/** Start `imgkit serve` in front of an API. */
const serveInFrontOf = (api) =>
  serve("--backend", "requests", "--provider", "openai", "--base-url", `http://127.0.0.1:${api.port}/v1`);

/** Start an API that answers each request in one way, and counts. */
async function startApi(answer) {
  const api = { posts: 0 };
  const server = createServer((request, reply) => {
    api.posts += 1;
    request.resume().on("end", () => answer(reply));
  });
  apis.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  api.port = server.address().port;
  return api;
}

before(async () => {
  painter = await serve();
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "posters-"));
});

afterEach(() => rm(folder, { recursive: true }));

after(async () => {
  for (const child of children) {
    child.kill();
    if (child.exitCode === null) await once(child, "exit");
  }
  for (const server of apis) {
    server.closeAllConnections();
    server.close();
  }
});

test("a poster is a file", async () => {
  const path = await makePoster(connect(painter), FAIR, folder);
  assert.equal(basename(path), "book-fair-oslo.png");
  assert.deepEqual((await readFile(path)).subarray(0, 8), PNG);
});

test("a poster can be changed within a mask", async () => {
  const client = connect(painter);
  const poster = await makePoster(client, FAIR, folder);
  const order = { poster, mask: MASK, wish: "a red balloon" };
  const path = await changePoster(client, { title: "book fair", town: "Bergen" }, order, folder);
  assert.notDeepEqual(await readFile(path), await readFile(poster));
});

test("a poster can be watched", async () => {
  const sketches = [];
  const path = await watchPoster(connect(painter), FAIR, folder, (sketch) => sketches.push(sketch));
  assert.equal(sketches.length, 2);
  assert.deepEqual((await readFile(path)).subarray(0, 8), PNG);
});

test("a refusal is the app's own error, and leaves no file", async () => {
  const error = { message: "No.", type: "image_generation_user_error", param: null, code: "moderation_blocked" };
  const api = await startApi((reply) => {
    reply.writeHead(400, { "content-type": "application/json" });
    reply.end(JSON.stringify({ error }));
  });
  await assert.rejects(makePoster(connect(await serveInFrontOf(api)), FAIR, folder), PosterRefused);
  assert.deepEqual(await readdir(folder), []);
});

test("a lost reply is paid for once", async () => {
  const api = await startApi((reply) => reply.destroy());
  await assert.rejects(makePoster(connect(await serveInFrontOf(api)), FAIR, folder), PosterUnknown);
  assert.equal(api.posts, 1);
});
