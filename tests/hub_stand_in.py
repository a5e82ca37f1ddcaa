"""A local server that answers the calls by which huggingface_hub uploads to and downloads from a hub."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

COMMIT = "c" * 40


class StandIn(ThreadingHTTPServer):
    """A hub of one branch: all files arrive inside commits, none by the protocols for large files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, dict[str, bytes]] = {}
        """Repository -> path -> content."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        words = unquote(self.path).partition("?")[0].strip("/").split("/")
        if words[:2] == ["api", "models"]:
            (self._tree if "tree" in words[4:] else self._model)("/".join(words[2:4]))
        else:  # OWNER/NAME/resolve/REVISION/PATH
            self._file("/".join(words[:2]), "/".join(words[4:]))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        action = self.path.partition("?")[0].split("/")[-2:]
        if action == ["repos", "create"]:
            repo = json.loads(body)
            name = f"{repo.get('organization') or 'me'}/{repo['name']}"
            self.server.files.setdefault(name, {})
            self._json({"url": f"{self.server.url}/{name}", "name": name})
        elif action == ["preupload", "main"]:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif action == ["commit", "main"]:
            self._commit("/".join(self.path.split("/")[3:5]), body)
        else:  # whether the head of a model card is YAML
            self._json({"errors": [], "warnings": []})

    def _commit(self, repo: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self._json({"commitUrl": f"{self.server.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT})

    def _model(self, repo: str) -> None:
        files = [{"rfilename": path} for path in self.server.files[repo]]
        self._json(
            {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": files, "private": False, "tags": []}
        )

    def _tree(self, repo: str) -> None:
        files = self.server.files[repo].items()
        self._json([{"type": "file", "path": path, "size": len(data), "oid": path} for path, data in files])

    def _file(self, repo: str, path: str) -> None:
        content = self.server.files.get(repo, {}).get(path)
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

    def _json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def running_hub() -> Iterator[StandIn]:
    """Yield a hub that listens on this machine until the block ends."""
    with StandIn() as hub:
        thread = Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
