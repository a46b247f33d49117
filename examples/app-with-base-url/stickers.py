"""An app that makes stickers with OpenAI's own SDK. It knows nothing of imgkit, only a base URL."""

import base64
import os
from pathlib import Path

import openai

MODEL = "gpt-image-2"


class StickerLost(Exception):
    """The sticker may have been paid for, and did not arrive. Ask the API before you make it again."""


class Stickers:
    """Makes stickers.

    Without arguments the SDK reads OPENAI_BASE_URL and OPENAI_API_KEY.
    """

    def __init__(self, base_url=None, api_key=None):
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key)

    def close(self):
        self._client.close()

    def make(self, word, path):
        """Draw a sticker of a word and save it; return the path.

        Raises:
            StickerLost: nobody knows whether the image was made.
        """
        try:
            reply = self._client.images.generate(
                model=MODEL, prompt=f"a sticker of {word}, white border", size="1024x1024", quality="low"
            )
        except openai.APIStatusError as error:
            if error.code == "outcome_unknown":
                raise StickerLost(word) from error
            raise
        return save(reply, path)

    def dress(self, sticker, clothes, path):
        """Draw clothes on a sticker and save the result; return the path."""
        with open(sticker, "rb") as image:
            reply = self._client.images.edit(model=MODEL, image=image, prompt=f"wearing {clothes}")
        return save(reply, path)

    def watch(self, word):
        """Yield the kinds of the events while a sticker is drawn."""
        stream = self._client.images.generate(
            model=MODEL, prompt=f"a sticker of {word}", size="1024x1024", stream=True, partial_images=2
        )
        for event in stream:
            yield event.type.rpartition(".")[2]


def save(reply, path):
    path = Path(path)
    path.write_bytes(base64.b64decode(reply.data[0].b64_json))
    return path


if __name__ == "__main__":
    print(Stickers().make(os.environ.get("STICKER", "a fox"), "sticker.png"))
