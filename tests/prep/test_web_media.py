"""Media named by http(s) URLs: fetched from a real server on loopback, and each way in which that can fail."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.errors import StorageError
from vlm_catalogs.source import FileSource
from vlm_prep import web_media
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.conversation import RejectSample
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import plan_files, read_part
from vlm_prep.web_media import fetch

HOST = "127.0.0.1"
PRIVATE = (HOST,)


class Server(ThreadingHTTPServer):
    """Answers ``/name`` with ``pages[name]``; counts what it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.pages: dict[str, Callable[[_Handler, int], None]] = {}
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self.server_address[1]}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/").partition("?")[0]
        self.server.asked.append(name)
        self.server.pages.get(name, lambda one, _: one.send_error(404))(self, self.server.asked.count(name))

    def send(self, content: bytes, *, stated: int | None = None) -> None:
        self.send_response(200)
        if stated is not None:
            self.send_header("Content-Length", str(stated))
        self.end_headers()
        self.wfile.write(content)

    def lead_to(self, url: str) -> None:
        self.send_response(302)
        self.send_header("Location", url)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(web_media, "FIRST_PAUSE", 0.01)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_medium_is_fetched_whole_by_redirects_too(server: Server) -> None:
    server.pages["a"] = lambda one, _: one.send(b"picture", stated=7)
    server.pages["b"] = lambda one, _: one.lead_to("/a?signed=1")
    assert fetch(server.url("b"), max_bytes=7, private_hosts=PRIVATE) == b"picture"
    assert server.asked == ["b", "a"]


def test_a_server_that_fails_for_a_while_is_asked_again(server: Server) -> None:
    def mended(one: _Handler, number: int) -> None:
        if number == 1:
            one.send_error(503)
        else:
            one.send(b"pict" if number == 2 else b"picture", stated=7)  # the second body is cut

    server.pages["a"] = mended
    assert fetch(server.url("a"), max_bytes=100, private_hosts=PRIVATE) == b"picture"
    assert server.asked == ["a"] * 3


def test_a_server_that_goes_on_failing_stops_the_build_and_no_signature_is_shown(server: Server) -> None:
    server.pages["a"] = lambda one, _: one.send_error(500)
    with pytest.raises(StorageError, match=r"/a: cannot be fetched: the server answers 500 \(tried 5 times\)") as error:
        fetch(server.url("a?signature=geheim"), max_bytes=100, private_hosts=PRIVATE)
    assert "geheim" not in str(error.value)
    assert server.asked == ["a"] * 5


def test_a_host_that_is_not_up_is_a_failing_storage(server: Server) -> None:
    url = server.url("a")
    server.shutdown()
    server.server_close()
    with pytest.raises(StorageError, match="NewConnectionError"):
        fetch(url, max_bytes=100, private_hosts=PRIVATE)


def test_a_body_that_never_ends_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(one: _Handler, _: int) -> None:
        one.send(b"")
        for _ in range(100):
            one.wfile.write(b"." * web_media.BLOCK)
            time.sleep(0.02)

    monkeypatch.setattr(web_media, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(web_media, "ATTEMPTS", 1)
    server.pages["a"] = drip
    with pytest.raises(StorageError, match="not whole after"):
        fetch(server.url("a"), max_bytes=1 << 30, private_hosts=PRIVATE)


def test_a_name_of_no_host_is_rejected_and_a_resolver_that_fails_stops_the_build(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, *_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME if host == "gone.example" else socket.EAI_AGAIN, "as the resolver says")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(RejectSample) as door:
        fetch("http://gone.example/a.png", max_bytes=100)
    assert door.value.rejected.reason == "missing_media"
    with pytest.raises(StorageError, match="as the resolver says"):
        fetch("http://other.example/a.png", max_bytes=100)


@pytest.mark.parametrize("stated", [None, 9])
def test_what_is_too_large_is_rejected(server: Server, stated: int | None) -> None:
    server.pages["a"] = lambda one, _: one.send(b"x" * 9, stated=stated)
    with pytest.raises(RejectSample) as door:
        fetch(server.url("a"), max_bytes=8, private_hosts=PRIVATE)
    assert door.value.rejected.reason == "sample_too_large"
    assert server.asked == ["a"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{server}/missing", "missing_media"),
        ("{server}/round", "missing_media"),
        ("{server}/file", "missing_media"),
        ("http://[::1/a.png", "missing_media"),
        ("http:///a.png", "missing_media"),
        (f"http://{'a' * 80}.com/a.png", "missing_media"),
        ("{server}/inside", "remote_media"),
        ("http://localhost/a.png", "remote_media"),
        ("http://[::ffff:127.0.0.1]/a.png", "remote_media"),
        ("http://169.254.169.254/latest/meta-data", "remote_media"),
        ("http://0x7f000001/a.png", "remote_media"),
    ],
)
def test_what_is_not_there_or_not_public_is_rejected(server: Server, url: str, reason: str) -> None:
    server.pages["round"] = lambda one, _: one.lead_to("/round")
    server.pages["file"] = lambda one, _: one.lead_to("ftp://host.example/a.png")
    server.pages["inside"] = lambda one, _: one.lead_to("http://127.0.0.2/a.png")
    with pytest.raises(RejectSample) as door:
        fetch(url.format(server=server.url("").rstrip("/")), max_bytes=100, private_hosts=PRIVATE)
    assert door.value.rejected.reason == reason


def _row(*images: str) -> str:
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": "What?"}]
    return json.dumps({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "That."}]})


def _read(file: Path, limits: Limits) -> list[BuiltSample | RejectedSample]:
    source = FileSource(name="d", weight=1.0, path=str(file), format="jsonl", origin="x.toml:1")
    raws = [raw for part in plan_files(source, "jsonl") for raw in read_part(source, "jsonl", part, limits)]
    return [build_sample(raw, limits) if isinstance(raw, RawSample) else raw for raw in raws]


def test_rows_that_name_urls_become_the_samples_of_files(server: Server, tmp_path: Path, small: Any) -> None:
    red, blue = small.picture("red"), small.picture("blue")
    (tmp_path / "red.png").write_bytes(red)
    (tmp_path / "blue.png").write_bytes(blue)
    server.pages["red.png"] = lambda one, _: one.send(red, stated=len(red))
    file = tmp_path / "rows.jsonl"
    file.write_text(
        f"{_row('red.png', 'blue.png')}\n{_row(server.url('red.png'), 'blue.png')}\n{_row(server.url('no'))}"
    )

    here, web, missing = _read(file, Limits(max_sample_bytes=1 << 20, fetch_media=True, fetch_private_hosts=PRIVATE))

    assert isinstance(here, BuiltSample) and isinstance(web, BuiltSample) and isinstance(missing, RejectedSample)
    assert web.payloads("d")[:-1] == here.payloads("d")[:-1]  # all but sample_id
    assert missing.rejected.reason == "missing_media"


def test_two_media_of_a_sample_share_its_room(server: Server, tmp_path: Path, small: Any) -> None:
    red, blue = small.picture("red"), small.picture("blue")
    server.pages["red"] = lambda one, _: one.send(red)
    server.pages["blue"] = lambda one, _: one.send(blue)
    file = tmp_path / "rows.jsonl"
    row = _row(server.url("red"), server.url("blue"))
    file.write_text(row)
    enough = len(row) + len(red) + len(blue)
    reasons = []
    for room in (enough, enough - 1):
        (sample,) = _read(file, Limits(max_sample_bytes=room, fetch_media=True, fetch_private_hosts=PRIVATE))
        reasons.append(sample.rejected.reason if isinstance(sample, RejectedSample) else "kept")
    assert reasons == ["kept", "sample_too_large"]


@pytest.mark.parametrize("url", ["https://example.org/a.png", "s3://bucket/a.png", "gs://bucket/a.png"])
def test_nothing_is_fetched_unless_it_is_asked_for(url: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(_row(url))
    (sample,) = _read(file, Limits(max_sample_bytes=1 << 20, fetch_media=not url.startswith("http")))
    assert isinstance(sample, RejectedSample)
    assert sample.rejected.reason == "remote_media"
