"""Recorded HTTP traffic on disk: scrubbing, image files, matching, reading and writing.

This room needs no vcrpy and sends nothing; `imgkit.testing.vcr_cassettes` connects it to vcrpy.
"""
