"""The offline artist: paints, edits and varies images from prompts, deterministically.

Pillow and data files only: nothing here knows HTTP or an API.
"""
