"""A hub of a few repositories on a socket, that speaks what huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit


def commit_of(revision: str) -> str:
    """What a hub calls the state of a branch."""
    return hashlib.sha1(revision.encode()).hexdigest()


@contextmanager
def small_hub(
    repositories: Mapping[str, Mapping[str, Path]], gated: tuple[str, ...] = ()
) -> Iterator[tuple[str, list[str]]]:
    """Serves directories by repository and branch; yields the address and, as they come, the
    paths that are asked for.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            asked.append(path)
            parts = path.removeprefix("api/models/").split("/")
            repository = "/".join(parts[:2])
            if repository in gated:
                return self._refuse(403, "GatedRepo")
            if repository not in repositories:
                return self._refuse(401, "RepoNotFound")
            revision = parts[3] if len(parts) > 3 else "main"
            branches = repositories[repository]
            branch = next((name for name in branches if revision in (name, commit_of(name))), None)
            if branch is None:
                return self._refuse(404, "RevisionNotFound")
            directory, commit = branches[branch], commit_of(branch)
            if not path.startswith("api/"):
                file = directory.joinpath(*parts[4:])
                if not file.is_file():
                    return self._refuse(404, "EntryNotFound")
                return self._send(file.read_bytes(), body, commit)
            files = sorted(file for file in directory.rglob("*") if file.is_file())
            names = [file.relative_to(directory).as_posix() for file in files]
            if "tree" in parts[2:3]:
                answer: Any = [
                    {
                        "type": "file",
                        "path": name,
                        "size": file.stat().st_size,
                        "oid": commit_of(name),
                    }
                    for name, file in zip(names, files, strict=True)
                ]
            else:
                siblings = [{"rfilename": name} for name in names]
                answer = {"id": repository, "sha": commit, "siblings": siblings}
            return self._send(json.dumps(answer).encode(), body, commit)

        def _send(self, content: bytes, body: bool, commit: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
