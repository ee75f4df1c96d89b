"""The exported model goes to a hub in one commit: the hub's own client against an endpoint on loopback."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

TOKEN = "hf_planted7f3a"
PROGRAM = """
import sys
from pathlib import Path
from vlm_train.upload_hub import HubRepository
from vlm_train.uploads import Uploads
with Uploads([HubRepository(sys.argv[1])]) as uploads:
    for folder in sys.argv[2:]:
        uploads.add(Path(folder), is_final=True)
    sys.exit(uploads.finish())
"""


class Hub:
    """Answers what the client asks before it commits, and keeps what is committed."""

    def __init__(self) -> None:
        hub = self
        self.committed: dict[str, bytes] = {}
        self.created: dict[str, object] = {}

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_known = self.headers.get("authorization") == f"Bearer {TOKEN}"
                content = json.dumps(hub.answer(self.path, body) if is_known else {"error": TOKEN}).encode()
                self.send_response(200 if is_known else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: bytes) -> dict[str, object]:
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return {"url": f"{self.url}/me/tiny"}
        if path.endswith("/preupload/main"):
            names = [one["path"] for one in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if "/commit/" in path:
            entries = [json.loads(line) for line in body.splitlines()]
            files = [one["value"] for one in entries if one["key"] == "file"]
            self.committed.update({one["path"]: base64.b64decode(one["content"]) for one in files})
            return {"commitUrl": f"{self.url}/me/tiny/commit/1", "commitOid": "1" * 40}
        return {"name": "me", "type": "user", "id": "me/tiny", "sha": "0" * 40, "siblings": []}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub()
    yield found
    found.close()


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for name, file in (("checkpoints/step-3", "COMPLETE"), ("safetensors/step-3", "config.json")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).write_text("{}")
    (tmp_path / "safetensors/step-3/model.safetensors").write_bytes(bytes(range(256)) * 40)
    return [str(tmp_path / name) for name in ("checkpoints/step-3", "safetensors/step-3")]


def upload(url: str, token: str, folders: list[str], *, name: str = "me/tiny") -> tuple[int, str]:
    settings = {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, *folders],
        check=False, capture_output=True, text=True, env={**os.environ, **settings}, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ["me/tiny", "tiny"])
def test_the_export_is_committed_to_a_private_repository(hub: Hub, folders: list[str], name: str) -> None:
    code, said = upload(hub.url, TOKEN, folders, name=name)
    assert code == 0, said
    assert "upload: safetensors/step-3 is at me/tiny" in said
    assert hub.created["visibility"] == "private"
    assert hub.committed == {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 40}
    assert TOKEN not in said


def test_a_wrong_token_ends_in_an_exit_code_and_no_secret(hub: Hub, folders: list[str]) -> None:
    code, said = upload(hub.url, "hf_wrong", folders)
    assert code == 3
    assert "upload: safetensors/step-3 was NOT copied: hub repository me/tiny: " in said and "(401)" in said
    assert "hf_wrong" not in said and TOKEN not in said and "Traceback" not in said
    assert hub.committed == {}
