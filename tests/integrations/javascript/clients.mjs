// The JavaScript clients, as a program: a JSON call a line in, a JSON outcome a line out.
import { createReadStream } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { createOpenAI } from "@ai-sdk/openai";
import { generateImage } from "ai";
import OpenAI from "openai";

const KEY = "sk-canary-client-77ab10";
globalThis.AI_SDK_LOG_WARNINGS = false;

function readResponse(response) {
  const images = response.data.map((item) => item.b64_json).filter(Boolean);
  return { images, urls: response.data.map((item) => item.url).filter(Boolean) };
}

async function readStream(stream, call) {
  const outcome = { images: [], partials: 0 };
  for await (const event of stream) {
    if (event.type.endsWith(".partial_image")) {
      outcome.partials += 1;
      if (call.seen) await writeFile(call.seen, "");
    } else {
      outcome.images.push(event.b64_json);
    }
  }
  return outcome;
}

async function callOpenAI(call) {
  const timeout = call.timeout_s ? { timeout: call.timeout_s * 1000 } : {};
  const client = new OpenAI({ apiKey: KEY, baseURL: call.base_url, ...timeout });
  const options = { model: call.model, size: call.size };
  if (call.response_format) options.response_format = call.response_format;
  if (call.mask) options.mask = createReadStream(call.mask);
  const image = call.images.map((path) => createReadStream(path));
  const prompt = call.prompt;
  const streaming = { stream: true, partial_images: 2 };
  switch (call.operation) {
    case "create":
      return readResponse(await client.images.generate({ prompt, ...options }));
    case "edit":
      return readResponse(await client.images.edit({ image, prompt, ...options }));
    case "variation":
      return readResponse(await client.images.createVariation({ image: image[0], ...options }));
    case "stream":
      return readStream(await client.images.generate({ prompt, ...options, ...streaming }), call);
    case "edit stream":
      return readStream(await client.images.edit({ image, prompt, ...options, ...streaming }), call);
    default: {
      const models = [];
      for await (const model of client.models.list()) models.push(model.id);
      return { models };
    }
  }
}

async function callVercel(call) {
  const provider = createOpenAI({ apiKey: KEY, baseURL: call.base_url });
  let prompt = call.prompt;
  if (call.images.length) {
    const images = await Promise.all(call.images.map((path) => readFile(path)));
    prompt = { text: call.prompt, images, mask: call.mask ? await readFile(call.mask) : undefined };
  }
  const { images } = await generateImage({ model: provider.image(call.model), prompt, size: call.size });
  return { images: images.map((image) => image.base64) };
}

function describeError(error) {
  const cause = error.lastError ?? error;
  return {
    error: error.name && error.name !== "Error" ? error.name : error.constructor.name,
    status: cause.status ?? cause.statusCode ?? null,
    code: cause.code ?? cause.data?.error?.code ?? null,
    param: cause.param ?? cause.data?.error?.param ?? null,
    body: cause.error ?? cause.data ?? null,
    message: String(error.message).slice(0, 2000),
  };
}

const clients = { "openai-js": callOpenAI, vercel: callVercel };

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  let outcome;
  try {
    outcome = await clients[call.client](call);
  } catch (error) {
    outcome = describeError(error);
  }
  process.stdout.write(JSON.stringify(outcome) + "\n");
}
