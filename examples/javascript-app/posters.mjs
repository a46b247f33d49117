// An app that makes posters for events. It knows the official SDK and an address, and nothing of imgkit.
import { createReadStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI, { APIError } from "openai";

const MODEL = "gpt-image-2";
const SIZE = "256x256";

/** The image API refused this poster. Change its words. */
export class PosterRefused extends Error {}

/** The poster may have been made and billed. Look at the account before you order it again. */
export class PosterUnknown extends Error {}

/** Connect to an Images API: OpenAI's, or `imgkit serve`. */
export function connect(baseURL, apiKey = "no key is needed") {
  return new OpenAI({ baseURL, apiKey });
}

/** Make a poster, and return the path of its file. */
export async function makePoster(client, event, folder) {
  const reply = await order(() => client.images.generate({ model: MODEL, size: SIZE, prompt: buildPrompt(event) }));
  return save(reply.data[0].b64_json, event, folder);
}

/** Paint something else into the transparent part of a mask, and return the path of the new file. */
export async function changePoster(client, event, { poster, mask, wish }, folder) {
  const reply = await order(() =>
    client.images.edit({
      model: MODEL,
      prompt: wish,
      image: createReadStream(poster),
      mask: createReadStream(mask),
    }),
  );
  return save(reply.data[0].b64_json, event, folder);
}

/** Make a poster, call `show` with each sketch of it, and return the path of its file. */
export async function watchPoster(client, event, folder, show) {
  const request = { model: MODEL, size: SIZE, prompt: buildPrompt(event), stream: true, partial_images: 2 };
  const events = await order(() => client.images.generate(request));
  for await (const each of events) {
    if (each.type === "image_generation.completed") {
      return save(each.b64_json, event, folder);
    }
    show(Buffer.from(each.b64_json, "base64"));
  }
  throw new PosterUnknown(`${event.title}: the stream ended early.`);
}

function buildPrompt({ title, town }) {
  return `a poster for ${title} in ${town}, flat colours, no text`;
}

async function order(send) {
  try {
    return await send();
  } catch (error) {
    if (error instanceof APIError && error.code === "moderation_blocked") {
      throw new PosterRefused(error.message, { cause: error });
    }
    if (error instanceof APIError && error.status === 424) {
      throw new PosterUnknown(error.message, { cause: error });
    }
    throw error;
  }
}

async function save(base64, { title, town }, folder) {
  const path = join(folder, `${title}-${town}.png`.toLowerCase().replaceAll(" ", "-"));
  await writeFile(path, Buffer.from(base64, "base64"));
  return path;
}
