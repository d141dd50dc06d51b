"""A Hugging Face Hub on this machine: enough of its HTTP for the official client.

It keeps commits of files in memory, serves small files itself and redirects large ones (LFS) to a
second server, its "CDN". It can be told to misbehave, see :data:`FAULTS`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_testtoken"
#: Answers to requests for files: a status, or what the name says.
FAULTS = ("401", "403", "404-repo", "404-revision", "429", "500", "timeout", "loop", "short",
          "wrong-bytes")  # fmt: skip
_ERROR_CODES = {"404-repo": "RepoNotFound", "404-revision": "RevisionNotFound"}
_LFS = (".safetensors", ".png")


class _Server(ThreadingHTTPServer):
    """A server that can hang up on clients that keep their connections."""

    daemon_threads = True

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class HubServer:
    """Use as a context manager; ``endpoint`` is what ``HF_ENDPOINT`` must be.

    Attributes:
        fault: one of :data:`FAULTS`, or None.
        faults_left: how many more requests meet the fault.
        requests: (method, path) of every request so far.
        repos: commit by branch, of each repository.
        private: repositories that are read with the token only.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.faults_left = 0
        self.requests: list[tuple[str, str]] = []
        self.repos: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._servers: list[_Server] = []

    def __enter__(self) -> HubServer:
        self._servers = [_Server(self), _Server(self)]
        # Another host: clients stop at a redirect that leaves the Hub, and read its headers.
        self.endpoint = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.cdn = f"http://localhost:{self._servers[1].server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening: from now on connections are refused."""
        self.closing.set()
        for server in self._servers:
            server.close()
        self._servers = []

    def misbehave(self, fault: str | None, times: int = 1 << 30) -> None:
        """Answer requests for files by a fault from now on."""
        self.fault, self.faults_left = fault, times

    def take_fault(self, *, of_body: bool) -> str | None:
        """The fault that the next answer shall have, if any."""
        with self.lock:
            if self.faults_left == 0 or (self.fault in ("short", "wrong-bytes")) != of_body:
                return None
            self.faults_left -= 1
            return self.fault

    def downloads(self, filename: str) -> int:
        """How many times a file's bytes were asked for."""
        blobs = {
            hashlib.sha256(f[filename]).hexdigest() for f in self.commits.values() if filename in f
        }
        ends = (f"/{filename}", *(f"/lfs/{blob}" for blob in blobs))
        direct = not filename.endswith(_LFS)
        return sum(
            method == "GET" and path.endswith(ends) and (direct or "/lfs/" in path)
            for method, path in self.requests
        )

    def commit(self, repo_id: str, branch: str, files: dict[str, bytes]) -> str:
        """Add files to a branch; the new commit's hash."""
        parent = self.repos[repo_id].get(branch, "")
        files = {**self.commits.get(parent, {}), **files}
        text = repr(
            (repo_id, parent, sorted((k, hashlib.sha256(v).hexdigest()) for k, v in files.items()))
        )
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = files
        self.repos[repo_id][branch] = oid
        return oid


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubServer:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def log_message(self, *_: object) -> None:
        pass

    # Answers

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, data: Any) -> None:
        self.answer(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def fail(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        if message:
            headers["X-Error-Message"] = message
        self.answer(status, json.dumps({"error": message or code}).encode(), headers)

    def send_file(self, content: bytes, headers: dict[str, str]) -> None:
        fault = self.hub.take_fault(of_body=True) if self.command == "GET" else None
        status = 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, total = int(match[1]), len(content)
            content, status = content[start:], 206
            headers = {**headers, "Content-Range": f"bytes {start}-{total - 1}/{total}"}
        if fault == "wrong-bytes":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "short":
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.answer(status, content, headers)

    # Requests

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for method, pattern, handler in _ROUTES:
            if self.command in method and (match := re.fullmatch(pattern, path)):
                if "GET" not in method and "lfs" not in pattern and not self.authorized():
                    self.fail(401, message="Invalid credentials in Authorization header")
                    return
                handler(self, **match.groupdict())
                return
        self.fail(404, message=f"no route for {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def find_commit(self, repo: str, revision: str) -> str | None:
        """The commit of a revision, or None after answering why there is none."""
        if repo not in self.hub.repos:
            self.fail(404, "RepoNotFound", "Repository not found")
        elif repo in self.hub.private and not self.authorized():
            self.fail(401, "RepoNotFound", "Invalid username or password.")
        elif revision in self.hub.repos[repo]:
            return self.hub.repos[repo][revision]
        elif revision in self.hub.commits:
            return revision
        else:
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def misbehaved(self) -> bool:
        """Answer a request for a file by a fault that needs no file."""
        fault = self.hub.take_fault(of_body=False)
        if fault == "timeout":
            self.hub.closing.wait(60)
            self.close_connection = True
        elif fault == "loop":
            self.answer(302, headers={"Location": self.path})
        elif fault and fault[0].isdigit():
            self.fail(int(fault[:3]), _ERROR_CODES.get(fault, ""))
        else:
            return False
        return True

    def resolve(self, repo: str, revision: str, name: str) -> None:
        if self.misbehaved() or (commit := self.find_commit(repo, revision)) is None:
            return
        content = self.hub.commits[commit].get(name)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self.answer(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        elif name.endswith(_LFS):
            blob = hashlib.sha256(content).hexdigest()
            headers["Location"] = f"{self.hub.cdn}/lfs/{blob}"
            headers["X-Linked-ETag"] = f'"{blob}"'
            headers["X-Linked-Size"] = str(len(content))
            self.answer(302, headers=headers)
        else:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.send_file(content, {**headers, "ETag": f'"{git}"'})

    def get_blob(self, blob: str) -> None:
        if not self.misbehaved():
            self.send_file(self.hub.blobs[blob], {"Accept-Ranges": "bytes"})

    def put_blob(self, blob: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != blob:
            self.fail(422, message="the bytes do not have this sha256")
            return
        self.hub.blobs[blob] = self.body
        self.answer(200)

    def model_info(self, repo: str, revision: str = "main") -> None:
        if (commit := self.find_commit(repo, revision)) is not None:
            siblings = [{"rfilename": name} for name in self.hub.commits[commit]]
            self.answer_json(
                {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": [],
                 "private": repo in self.hub.private, "downloads": 0, "likes": 0}
            )  # fmt: skip

    def create_repo(self) -> None:
        data = json.loads(self.body)
        repo = f"{data['organization']}/{data['name']}"
        if repo in self.hub.repos:
            url = f"{self.hub.endpoint}/{repo}"
            self.answer(409, json.dumps({"error": "it exists", "url": url}).encode())
            return
        self.hub.repos[repo] = {}
        if data.get("private") or data.get("visibility") == "private":
            self.hub.private.add(repo)
        self.hub.commit(repo, "main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer_json({"url": f"{self.hub.endpoint}/{repo}", "name": repo, "id": "1"})

    def validate_yaml(self) -> None:
        good = json.loads(self.body)["content"].startswith("---\n")
        self.answer_json({"errors": [] if good else [{"message": "no metadata"}], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        if self.find_commit(repo, revision) is not None:
            files = [
                {"path": f["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if f["path"].endswith(_LFS) else "regular"}
                for f in json.loads(self.body)["files"]
            ]  # fmt: skip
            self.answer_json({"files": files})

    def lfs_batch(self, repo: str) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.cdn}/lfs/{wanted['oid']}"}}
            known = wanted["oid"] in self.hub.blobs
            objects.append(wanted if known else {**wanted, "actions": upload})
        self.answer_json({"transfer": "basic", "objects": objects})

    def post_commit(self, repo: str, revision: str) -> None:
        if self.find_commit(repo, revision) is None:
            return
        files = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        oid = self.hub.commit(repo, revision, files)
        url = f"{self.hub.endpoint}/{repo}/commit/{oid}"
        self.answer_json({"success": True, "commitUrl": url, "commitOid": oid})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_READ, _WRITE = ("GET", "HEAD"), ("POST", "PUT")
_ROUTES: list[tuple[tuple[str, ...], str, Any]] = [
    (_READ, r"/lfs/(?P<blob>\w+)", _Handler.get_blob),
    (_WRITE, r"/lfs/(?P<blob>\w+)", _Handler.put_blob),
    (_READ, rf"/{_REPO}/resolve/(?P<revision>refs/\w+/\w+|[^/]+)/(?P<name>.+)", _Handler.resolve),
    (_READ, rf"/api/models/{_REPO}", _Handler.model_info),
    (_READ, rf"/api/models/{_REPO}/revision/(?P<revision>.+)", _Handler.model_info),
    (_WRITE, r"/api/repos/create", _Handler.create_repo),
    (_WRITE, r"/api/validate-yaml", _Handler.validate_yaml),
    (_WRITE, rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    (_WRITE, rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (_WRITE, rf"/api/models/{_REPO}/commit/(?P<revision>.+)", _Handler.post_commit),
]
