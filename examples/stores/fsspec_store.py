"""A cache store in any file system that fsspec supports: a bucket, an SSH host, memory.

A lease is a file that only one caller can create. A file system cannot notice the death of a caller, so a
lease expires after `LEASE_S` seconds.
"""

import base64
import json
import secrets
import time

import fsspec

from imgkit.plugins import Busy, Entry, Failure, Hit, Lease

LEASE_S = 900


class FsspecStore:
    """A `CacheStore` at a URL such as ``memory://cache`` or ``s3://bucket/cache``."""

    def __init__(self, url):
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self.fs.makedirs(self.root, exist_ok=True)

    def try_lease(self, key, *, newer_than=None, waited_for=""):
        record = self._read_json(f"{key}.json")
        if record and (newer_than is None or record["created_at"] > newer_than):
            record["pictures"] = tuple(map(base64.b64decode, record["pictures"]))
            return Hit(Entry(**record))
        if waited_for and (failure := self._read_json(f"{waited_for}.failed")):
            return Busy(waited_for, Failure(**failure))
        lease = Lease(key, secrets.token_hex(16), self)
        try:
            with self.fs.open(f"{self.root}/{key}.lease", "xb") as file:
                file.write(json.dumps({"holder": lease.holder, "until": time.time() + LEASE_S}).encode())
        except FileExistsError:
            current = self._read_json(f"{key}.lease") or {"holder": "", "until": time.time() + 1}
            if current["until"] < time.time():
                self.fs.rm_file(f"{self.root}/{key}.lease")
            return Busy(current["holder"])
        return lease

    def commit(self, lease, entry):
        images = [base64.b64encode(image).decode() for image in entry.pictures]
        record = {"facts": dict(entry.facts), "pictures": images, "created_at": entry.created_at}
        self._write_json(f"{lease.key}.json", record)
        self.abandon(lease)

    def abandon(self, lease, failure=None):
        if (self._read_json(f"{lease.key}.lease") or {}).get("holder") == lease.holder:
            if failure:
                record = {"error": failure.error, "message": failure.message, "facts": dict(failure.facts)}
                self._write_json(f"{lease.holder}.failed", record)
            self.fs.rm_file(f"{self.root}/{lease.key}.lease")

    def _read_json(self, name):
        try:
            return json.loads(self.fs.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, ValueError):
            return None

    def _write_json(self, name, value):
        self.fs.pipe_file(f"{self.root}/{name}", json.dumps(value).encode())
