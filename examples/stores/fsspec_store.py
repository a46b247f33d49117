"""A cache in any file system that fsspec knows: a bucket, an SSH host, memory.

A lease is a file that only one caller can make. A file system cannot tell that a caller has died, so leases
end after `LEASE_S` seconds.
"""

import base64
import json
import secrets
import time

import fsspec

from imgkit.plugins.protocols import Busy, Entry, Failure, Hit, Lease

LEASE_S = 900


class FsspecStore:
    def __init__(self, url):
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self.fs.makedirs(self.root, exist_ok=True)

    def try_lease(self, key, *, newer_than=None, waited_for=""):
        told = self._get(f"{key}.json")
        if told and (newer_than is None or told["created_at"] > newer_than):
            told["pictures"] = tuple(map(base64.b64decode, told["pictures"]))
            return Hit(Entry(**told))
        if waited_for and (failure := self._get(f"{waited_for}.failed")):
            return Busy(waited_for, Failure(**failure))
        lease = Lease(key, secrets.token_hex(16), self)
        try:
            with self.fs.open(f"{self.root}/{key}.lease", "xb") as file:
                file.write(json.dumps({"holder": lease.holder, "until": time.time() + LEASE_S}).encode())
        except FileExistsError:
            other = self._get(f"{key}.lease") or {"holder": "", "until": time.time() + 1}
            if other["until"] < time.time():
                self.fs.rm_file(f"{self.root}/{key}.lease")
            return Busy(other["holder"])
        return lease

    def commit(self, lease, entry):
        pictures = [base64.b64encode(one).decode() for one in entry.pictures]
        told = {"facts": dict(entry.facts), "pictures": pictures, "created_at": entry.created_at}
        self._put(f"{lease.key}.json", told)
        self.abandon(lease)

    def abandon(self, lease, failure=None):
        if (self._get(f"{lease.key}.lease") or {}).get("holder") == lease.holder:
            if failure:
                told = {"error": failure.error, "message": failure.message, "facts": dict(failure.facts)}
                self._put(f"{lease.holder}.failed", told)
            self.fs.rm_file(f"{self.root}/{lease.key}.lease")

    def _get(self, name):
        try:
            return json.loads(self.fs.cat_file(f"{self.root}/{name}"))
        except (FileNotFoundError, ValueError):
            return None

    def _put(self, name, value):
        self.fs.pipe_file(f"{self.root}/{name}", json.dumps(value).encode())
