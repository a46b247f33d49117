"""Paint docs/contact-sheet.webp: what the offline backend makes of some prompts, an edit and a variation.

Run it from the checkout: ``python docs/make_contact_sheet.py``
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from imgkit.painter.glyphs import text_font  # noqa: E402
from imgkit.painter.painter import Brief, edit, paint, vary  # noqa: E402

PROMPTS = (
    "A cute baby sea otter",
    "a red fox in the snow",
    "three cats",
    "two dogs on a beach at sunset",
    "a blue house by the sea at night",
    "a green dragon and a castle",
    "white rabbit in a forest",
    "an astronaut riding a horse",
    "a city at night in the rain",
    "a bowl of fruit",
    "five yellow flowers in a meadow",
    "a pirate ship on the sea",
    "a robot playing the guitar",
    "a whale and a submarine underwater",
)
SIDE = 360
COLUMNS = 4
LINE = 34


def brief(prompt: str, salt: str = "") -> Brief:
    """Return the brief of one small square picture."""
    return Brief(prompt, SIDE, SIDE, hashlib.sha256(f"{salt}{prompt}".encode()).hexdigest())


def panels() -> list[tuple[str, Image.Image]]:
    """Return the captions and pictures of the sheet."""
    shown = [(prompt, paint(brief(prompt))) for prompt in PROMPTS]
    otter = shown[0][1]
    mask = Image.new("RGBA", otter.size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).ellipse((SIDE // 16, SIDE // 16, SIDE // 2, SIDE // 2), fill=(0, 0, 0, 0))
    shown.append(('edit with a mask: "a hot air balloon"', edit(brief("a hot air balloon"), otter, mask)))
    shown.append(("a variation of the first picture", vary(brief(PROMPTS[0], "variation"), otter)))
    return shown


def main() -> None:
    """Write the sheet beside this script."""
    shown = panels()
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + LINE)), "white")
    pencil = ImageDraw.Draw(sheet)
    for index, (caption, picture) in enumerate(shown):
        x, y = index % COLUMNS * SIDE, index // COLUMNS * (SIDE + LINE)
        sheet.paste(picture, (x, y))
        at = (x + SIDE // 2, y + SIDE + LINE // 2)
        pencil.text(at, caption, font=text_font(16), fill=(40, 40, 52), anchor="mm")
    sheet.save(HERE / "contact-sheet.webp", quality=86, method=6)


if __name__ == "__main__":
    main()
