"""Weights: found where they lie, downloaded and checked where they do not, refused when they are wrong."""

from __future__ import annotations

import hashlib
import http.server
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from segmotion_plugin import weights
from segmotion_plugin.errors import SegmotionError
from segmotion_plugin.weights import CATALOGUE, Weights, announce, file_of, folder_of, load_state, status

CONTENT = b"weights of a model" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub on this machine; what it answers is set per test."""

    content: bytes = CONTENT
    stated: str = DIGEST
    length: int | None = None
    asked: list[str] = []

    def do_GET(self) -> None:
        Hub.asked.append(self.path)
        if "absent" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(Hub.length or len(Hub.content)))
        self.end_headers()
        self.wfile.write(Hub.content)

    def do_HEAD(self) -> None:
        self.send_response(302)
        self.send_header("X-Linked-Etag", f'"{Hub.stated}"')
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    Hub.content, Hub.stated, Hub.length, Hub.asked = CONTENT, DIGEST, None, []
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, sha256 in {"known": DIGEST, "unstated": "", "absent": DIGEST}.items():
        entry = Weights(name, "tracks", "Apache-2.0", True, 1, ((f"{name}.pth", sha256),), repo="someone/model", revision="a" * 40)
        monkeypatch.setitem(CATALOGUE, name, entry)
    yield address
    server.shutdown()
    server.server_close()


def test_a_download_is_pinned_checked_and_kept(hub: str, tmp_path: Path) -> None:
    path = file_of("known")
    assert path.read_bytes() == CONTENT
    assert path == tmp_path / "cache" / "segmotion" / "known" / "known.pth"
    assert Hub.asked == [f"/someone/model/resolve/{'a' * 40}/known.pth"]
    assert file_of("known") == path and len(Hub.asked) == 1


def test_a_weights_folder_is_looked_at_first_and_filled(hub: str, tmp_path: Path) -> None:
    assert file_of("known", tmp_path / "mine") == tmp_path / "mine" / "known" / "known.pth"
    placed = tmp_path / "placed" / "known.pth"
    placed.parent.mkdir()
    placed.write_bytes(CONTENT)
    assert file_of("known", tmp_path / "placed") == placed


def test_the_hub_cache_is_used(hub: str, tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--someone--model" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "known.pth").write_bytes(CONTENT)
    assert folder_of("known") == snapshot
    assert Hub.asked == []


def test_offline_says_what_to_put_where(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SegmotionError) as error:
        file_of("known")
    text = str(error.value)
    assert "HF_HUB_OFFLINE" in text and "known.pth" in text and hub in text and "Apache-2.0" in text
    assert str(tmp_path / "cache" / "segmotion" / "known") in text
    assert Hub.asked == [] and len(text.splitlines()) <= 3
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(SegmotionError, match="downloads are off"):
        file_of("known", download=False)


@pytest.mark.parametrize("name", ["known", "unstated"])
def test_a_download_of_wrong_content_leaves_nothing_behind(hub: str, tmp_path: Path, name: str) -> None:
    Hub.content = b"something else"
    with pytest.raises(SegmotionError, match="SHA-256"):
        file_of(name)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_hash_that_is_not_pinned_is_taken_from_the_hub(hub: str) -> None:
    assert file_of("unstated").read_bytes() == CONTENT


def test_a_download_that_breaks_off_leaves_nothing_behind(hub: str, tmp_path: Path) -> None:
    Hub.length = len(CONTENT) + 5
    with pytest.raises(SegmotionError, match="broke off|could not be downloaded"):
        file_of("known")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_no_network_and_no_such_file_are_one_clear_line(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SegmotionError, match="could not be downloaded .*404|could not be downloaded .*Not Found"):
        file_of("absent")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SegmotionError, match="could not be downloaded .*refused"):
        file_of("known")


def test_a_damaged_local_file_is_refused(hub: str, tmp_path: Path) -> None:
    (tmp_path / "known.pth").write_bytes(CONTENT[:100])
    with pytest.raises(SegmotionError, match="damaged or another version"):
        file_of("known", tmp_path)


def test_unknown_names_are_told_with_those_that_exist() -> None:
    with pytest.raises(SegmotionError, match="seganymo"):
        folder_of("nothing")


def test_every_entry_is_pinned_and_licensed() -> None:
    for entry in CATALOGUE.values():
        assert entry.licence and entry.megabytes > 0 and entry.source.startswith("https://")
        for _, sha256 in entry.files:
            # What has no revision needs its hash; what has a revision may leave it to the hub.
            assert len(sha256) == 64 or (not sha256 and len(entry.revision) == 40)
        if entry.repo:
            assert len(entry.revision) == 40 and entry.revision in entry.source
    assert not CATALOGUE["cotracker3-offline"].commercial


def test_status_lists_what_lies_here(tmp_path: Path) -> None:
    (tmp_path / "moseg.pth").write_bytes(b"x")
    found = {entry.weights.name: entry.path for entry in status(tmp_path)}
    assert set(found) == set(CATALOGUE)
    assert found["seganymo"] == tmp_path


def test_a_restricting_licence_is_told_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_told", set())
    with caplog.at_level(logging.WARNING, "segmotion"):
        for _ in range(3):
            announce("cotracker3-offline")
            announce("dinov2-small")
    assert [record.getMessage() for record in caplog.records] == [
        "cotracker3-offline weights: licence CC-BY-NC-4.0, check it before commercial use."
    ]


def test_tensors_are_read_from_both_formats_and_nothing_else(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {"weight": torch.arange(3.0)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "c.pth")
    for name in ("a.safetensors", "b.pth", "c.pth"):
        assert load_state(tmp_path / name)["weight"].tolist() == [0, 1, 2]
    (tmp_path / "d.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-2])
    (tmp_path / "e.pth").write_bytes(b"not a file of weights")
    (tmp_path / "f.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "g.pth")
    for name in ("d.safetensors", "e.pth", "f.pth", "g.pth"):
        with pytest.raises(SegmotionError, match=name):
            load_state(tmp_path / name)
