"""Recordings: which line goes into which file, and what bounds the files and the memory."""

from __future__ import annotations

import json
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.config import ConfigError, ServerSettings
from gateway.observe.recording import Recorder, Tape, folder, recorder, recording
from gateway.observe.recording.lines import Lines, Said, read

READY = b'{"jsonrpc":"2.0","method":"ready","params":{"protocol":1}}'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


class Scene:
    """A recorder, and one worker's tape."""

    def __init__(self, place: Path, *, size: int = 1 << 30) -> None:
        self.place = place
        self.recorder = Recorder(str(place), size=size)
        self.tape = self.recorder.tape("echo", ("run", "me"))

    def ask(self, wire_id: int, name: str, *, tape: Tape | None = None) -> None:
        line = b'{"jsonrpc":"2.0","id":%d,"method":"invoke","params":{"input":1}}' % wire_id
        (tape or self.tape).asked(wire_id, name, line)

    def recordings(self) -> dict[str, list[dict[str, Any]]]:
        """End the recorder; the lines of each file, by request."""
        assert self.recorder.close(30)
        found = {}
        for path in sorted(self.place.iterdir()):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert path.name.endswith(".jsonl")
            found[lines[0]["request_id"]] = lines
        return found


@pytest.fixture
def scene(place: Path) -> Iterator[Scene]:
    made = Scene(place)
    yield made
    made.recorder.close()


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [next(key for key in line if key != "at") for line in lines[1:]]


def test_each_request_is_one_file_whatever_is_said_at_once(scene: Scene) -> None:
    scene.tape.said(READY + b"\n")
    scene.ask(1, "one")
    scene.ask(2, "two")
    chunk = b'{"method":"chunk","params":{"id":2,"chunk":"a"}}\n'
    scene.tape.said(b'{"id":1,"result":{"output":1}}\n' + chunk + chunk[:9])
    scene.tape.said(chunk[9:] + b'{"id":2,"result":{}}\n')
    scene.tape.said(b'{"id":2,"result":{"output":"late"}}\n')
    found = scene.recordings()
    header = found["one"][0]
    assert (header["recording"], header["agent"], header["command"]) == (1, "echo", ["run", "me"])
    assert header["ready"] == json.loads(READY)
    assert kinds(found["one"]) == ["to", "from", "end"]
    assert found["one"][2]["from"] == {"id": 1, "result": {"output": 1}}
    assert kinds(found["two"]) == ["to", "from", "from", "from", "end"]
    assert found["two"][-1]["end"] == "answered"
    times = [line["at"] for line in found["two"][1:]]
    assert times == sorted(times)


def test_a_handshake_that_comes_after_the_request_is_in_its_file(scene: Scene) -> None:
    scene.ask(1, "one")
    scene.tape.said(READY + b'\n{"id":1,"error":{"code":-32000,"message":"no"}}\n')
    assert kinds(scene.recordings()["one"]) == ["to", "from", "from", "end"]


def test_what_breaks_the_connection_is_in_all_files_and_so_is_the_worker_s_end(
    scene: Scene,
) -> None:
    scene.ask(1, "one")
    scene.ask(2, "two")
    scene.tape.told(1, b'{"jsonrpc":"2.0","method":"cancel","params":{"id":1}}')
    scene.tape.said(b"Traceback:\xff\nno end")
    scene.tape.close()
    found = scene.recordings()
    assert kinds(found["one"]) == ["to", "to", "text", "text", "end"]
    assert kinds(found["two"]) == ["to", "text", "text", "end"]
    assert [line.get("text") for line in found["two"][2:4]] == ["Traceback:\\xff", "no end"]
    assert found["two"][-1]["end"] == "worker ended"


def test_a_name_that_a_client_chose_names_no_other_file(scene: Scene) -> None:
    scene.ask(1, "../../etc/passwd\n" + "x" * 500)
    scene.tape.close()
    assert scene.recorder.close(30)
    [path] = scene.place.iterdir()
    assert len(path.name) < 150
    assert folder._OURS.match(path.name)


def test_a_command_that_is_not_utf_8_can_be_recorded(scene: Scene) -> None:
    tape = scene.recorder.tape("odd", ("run", "caf\udce9"))
    scene.ask(1, "one", tape=tape)
    assert scene.recordings()["one"][0]["command"] == ["run", "caf\\udce9"]


def test_only_the_gateway_s_user_can_read_them(scene: Scene) -> None:
    scene.ask(1, "one")
    scene.recordings()
    [path] = scene.place.iterdir()
    assert stat.S_IMODE(scene.place.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_others_can_read_is_refused(place: Path) -> None:
    place.mkdir(mode=0o755)
    place.chmod(0o750)
    with pytest.raises(ConfigError, match=r"server\.record: .* \(chmod 700\)"):
        Recorder(str(place), size=1)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"server\.record: .*/file.*: Not a directory"):
        Recorder(str(tmp_path / "file" / "folder"), size=1)


def test_a_recording_stops_at_its_most(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_RECORDING", 1000)
    scene.ask(1, "one")
    for _ in range(100):
        scene.tape.said(b'{"method":"chunk","params":{"id":1,"chunk":"%s"}}\n' % (b"x" * 100))
    scene.tape.said(b'{"id":1,"result":{}}\n')
    lines = scene.recordings()["one"]
    assert lines[-1]["end"] == "too large"
    assert sum(len(json.dumps(line)) for line in lines) < 2000


def test_the_oldest_are_removed_and_nothing_that_is_not_a_recording(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Scene(place)
    for number in range(5):
        first.ask(number, f"old{number}")
    first.recordings()
    (place / "notes.txt").write_text("x" * 10_000)
    monkeypatch.setattr(folder, "MAX_FILES", 4)
    second = Scene(place)
    second.ask(1, "new")
    assert second.recorder.close(30)
    left = sorted(path.name for path in place.iterdir())
    assert left[-1] == "notes.txt"
    assert [name.rpartition("-")[2] for name in left[:-1]] == [
        "old2.jsonl", "old3.jsonl", "old4.jsonl", "new.jsonl"
    ]  # fmt: skip


def test_the_bytes_of_the_folder_are_bounded(place: Path) -> None:
    scene = Scene(place, size=3000)
    for number in range(50):
        scene.ask(number, f"r{number}")
        scene.tape.said(b'{"id":%d,"result":{"output":"%s"}}\n' % (number, b"x" * 300))
    assert scene.recorder.close(30)
    files = sorted(place.iterdir())
    assert 1 < len(files) < 6
    assert sum(path.stat().st_size for path in files) <= 3000
    assert files[-1].name.endswith("r49.jsonl")


def test_a_request_whose_file_was_removed_does_not_come_back_without_its_beginning(
    place: Path,
) -> None:
    scene = Scene(place, size=1)
    other = scene.recorder.tape("other", ())
    scene.ask(1, "one")
    scene.ask(2, "two", tape=other)
    scene.tape.said(b'{"id":1,"result":{"output":1}}\n')
    assert list(scene.recordings()) == ["two"]


def test_a_disk_that_does_not_keep_up_costs_recordings_and_no_memory(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_QUEUED", 100_000)
    scene.ask(1, "one")
    with scene.recorder._changed:  # the thread cannot take anything meanwhile
        for _ in range(1000):
            scene.tape.said(b'{"method":"chunk","params":{"id":1,"chunk":"%s"}}' % (b"x" * 1000))
        assert scene.recorder._queued < 110_000
        assert [entry.kind for entry in scene.recorder._queue].count("lost") == 1
        assert scene.recorder._changed.wait_for(lambda: not scene.recorder._queued, 30)
    scene.tape.said(b'"}}\n')  # the end of a line that was lost is no line
    scene.ask(2, "two")
    scene.tape.said(b'{"id":2,"result":{"output":2}}\n')
    found = scene.recordings()
    assert found["one"][-1]["end"] == "gateway too slow"
    assert kinds(found["two"]) == ["to", "from", "end"]


def test_a_line_for_all_requests_of_a_worker_is_not_held_for_each_of_them(scene: Scene) -> None:
    tracemalloc.start()
    try:
        for wire_id in range(100):
            scene.ask(wire_id, f"r{wire_id}")
        scene.tape.said(b'{"method":"other","params":"%s"}\n' % (b"x" * 1_000_000))
        assert scene.recorder.close(30)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(path.stat().st_size for path in scene.place.iterdir()) > 100_000_000
    assert peak < 20_000_000


def test_a_disk_that_fails_ends_recording_with_one_line_in_the_log(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.place.rmdir()
    for number in range(3):
        scene.ask(number, "one")
    assert scene.recorder.close(30)
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("recording has stopped: ")
    assert "No such file" in line


def test_it_is_said_loudly_that_everything_is_recorded(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with recording(ServerSettings(record=str(place))) as made:
        assert made is not None
    with recording(ServerSettings()) as made:
        assert made is None
    [record] = caplog.records
    assert (record.levelname, "RECORDING" in record.getMessage()) == ("WARNING", True)


@given(st.binary(max_size=200))
def test_any_line_at_all_can_be_recorded(line: bytes) -> None:
    said = read(line)
    assert said.kind in {"from", "text"}


@pytest.mark.parametrize("before", [b"", b'{"id":1,"result":', b'{"id":', b'{"params":{"id":'])
@pytest.mark.parametrize("depth", [1000, 100_000])
def test_a_line_that_nests_too_deep_is_text_and_ends_no_recording(
    scene: Scene, before: bytes, depth: int
) -> None:
    line = before + b"[" * depth + b"]" * depth + b"}" * before.count(b"{")
    scene.ask(1, "one")
    scene.tape.said(line + b"\n")
    scene.ask(2, "two")
    scene.tape.close()
    found = scene.recordings()
    assert kinds(found["two"]) == ["to", "end"]
    if depth > 1000:
        assert found["one"][2] == {"at": found["one"][2]["at"], "text": line.decode()}


@pytest.mark.parametrize(
    ("line", "method", "wire_id"),
    [
        (b'{"id":7,"result":{}}', None, 7),
        (b'{"method":"chunk","params":{"id":7}}', "chunk", 7),
        (b'{"method":"ev\\u0065nt","params":{"id":7}}', "event", 7),
        (b'{"method":"ready","id":7}', "ready", None),
        (b'{"method":"chunk","params":{"id":"7"}}', "chunk", None),
        (b'{"id":[7]}', None, None),
        (b'{"id":null}', None, None),
        (b"{}", None, None),
    ],
)
def test_a_line_says_whom_it_is_for(line: bytes, method: str | None, wire_id: int | None) -> None:
    assert read(line) == Said("from", Raw(line), method, wire_id)


@pytest.mark.parametrize("line", [b"[1]", b"7", b"{", b'{"method":"chunk","params":7}'])
def test_what_is_no_message_is_kept_as_text(line: bytes) -> None:
    assert read(line) == Said("text", line.decode())


@given(st.lists(st.sampled_from([b"a", b"bc", b"", b" ", b"\r"]), max_size=8), st.data())
def test_lines_are_the_same_in_any_split(texts: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    lines, found = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += lines.feed(whole[start:end])
    assert found == [text.strip() for text in texts[:-1] if text.strip()]
    assert lines.rest() == (texts[-1] if texts else b"")
