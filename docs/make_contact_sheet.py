"""Paint docs/contact-sheet.webp: offline paintings of some prompts, an edit and a variation.

Run it from the checkout: ``python docs/make_contact_sheet.py``
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from imgkit.painter.glyphs import open_text_font  # noqa: E402
from imgkit.painter.paint import Brief, edit_image, paint_image, vary_image  # noqa: E402

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
SIDE_PX = 360
COLUMNS = 4
CAPTION_PX = 34


def make_brief(prompt: str, salt: str = "") -> Brief:
    """Return the brief of a small square image."""
    return Brief(prompt, SIDE_PX, SIDE_PX, hashlib.sha256(f"{salt}{prompt}".encode()).hexdigest())


def paint_panels() -> list[tuple[str, Image.Image]]:
    """Return the captions and images of the sheet."""
    panels = [(prompt, paint_image(make_brief(prompt))) for prompt in PROMPTS]
    otter = panels[0][1]
    mask = Image.new("RGBA", otter.size, (0, 0, 0, 255))
    ImageDraw.Draw(mask).ellipse(
        (SIDE_PX // 16, SIDE_PX // 16, SIDE_PX // 2, SIDE_PX // 2), fill=(0, 0, 0, 0)
    )
    panels.append(
        ('edit with a mask: "a hot air balloon"', edit_image(make_brief("a hot air balloon"), otter, mask))
    )
    panels.append(
        ("a variation of the first picture", vary_image(make_brief(PROMPTS[0], "variation"), otter))
    )
    return panels


def main() -> None:
    """Write the sheet next to this script."""
    panels = paint_panels()
    rows = -(-len(panels) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE_PX, rows * (SIDE_PX + CAPTION_PX)), "white")
    pencil = ImageDraw.Draw(sheet)
    for index, (caption, image) in enumerate(panels):
        x, y = index % COLUMNS * SIDE_PX, index // COLUMNS * (SIDE_PX + CAPTION_PX)
        sheet.paste(image, (x, y))
        at = (x + SIDE_PX // 2, y + SIDE_PX + CAPTION_PX // 2)
        pencil.text(at, caption, font=open_text_font(16), fill=(40, 40, 52), anchor="mm")
    sheet.save(HERE / "contact-sheet.webp", quality=86, method=6)


if __name__ == "__main__":
    main()
