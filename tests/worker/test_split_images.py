"""Inputs whose images are split: tiles and frames are records of their own, with the picture in them, and lie in a file of the batch's."""

from __future__ import annotations

import binascii
import signal
import tempfile
import time
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from headrace.api.splitting import Split, SplitBy
from headrace.api.worker import ExitCode, PlanReport, Role, WorkerConfig
from headrace_worker.errors import JobFailed
from headrace_worker.formats import imageparts
from headrace_worker.formats.shards import read_shard
from headrace_worker.manifest import iter_shards, read_header
from headrace_worker.media import cutting, images
from headrace_worker.media.errors import unreachable
from headrace_worker.media.library import MediaLibrary
from headrace_worker.planning import partsfile
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from media_files import bomb, data_url, image_part, picture, recording, sound_part, tone
from worker_builders import NOW, a_config, no_progress, write_files
from worker_fanout import FanOut
from worker_rig import CREATED, Folder, Zygote

STORE = LocalStore()
TILES = {"by": "tiles", "size": 8}
FRAMES = {"by": "frames", "size": 2}
MP4 = b"\x00\x00\x00\x20ftypisom" + b"\0" * 64


def noise(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels of shape [height, width, 3], no two of which are likely to be the same."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def animation(colors: Iterable[str], kind: str = "GIF", milliseconds: int = 40) -> bytes:
    """A picture of one colour after the other."""
    first, *others = [Image.new("RGB", (6, 4), color) for color in colors]
    file = BytesIO()
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    first.save(file, kind, save_all=True, append_images=others, duration=milliseconds, **options)
    return file.getvalue()


def row(custom_id: str, *content: dict[str, Any], **fields: Any) -> bytes:
    return orjson.dumps({"custom_id": custom_id, "content": content, **fields}, option=orjson.OPT_APPEND_NEWLINE)


def an_image_config(folder: Path, *rows: bytes, split: dict[str, Any], **fields: Any) -> WorkerConfig:
    write_files(folder, {"in.jsonl": rows})
    more = {"split": split, **fields.pop("input", {})}
    model = {"name": "lite", "task": "image-classification"}
    return a_config(folder, input={"format": "jsonl", **more}, model=model, **fields)


def planned(config: WorkerConfig) -> PlanReport:
    report = plan(config, None, NOW, no_progress)
    assert report.errors == ()
    return report


def parts(config: WorkerConfig) -> list[dict[str, Any]]:
    """The lines that the records are read from."""
    assert config.records.uri is not None
    return [orjson.loads(line) for line in STORE.read(config.records.uri).splitlines()]


def pixels(part: dict[str, Any]) -> NDArray[np.uint8]:
    """Those of the only picture of a part, or of its request."""
    (image,) = (it for it in part.get("content") or part["input"] if it["type"] == "image_url")
    data = binascii.a2b_base64(image["image_url"]["url"].partition(",")[2])
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.data(), st.integers(1, 6))
def test_tiles_are_in_one_shard_once_in_order_and_have_the_pixels_of_their_image(
    width: int, height: int, size: int, data: st.DataObject, shards: int
) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    images = [noise(width, height, seed) for seed in range(2)]
    with tempfile.TemporaryDirectory() as name:
        rows = [row(f"r{n}", image_part(data_url(png(image)))) for n, image in enumerate(images)]
        split = {"by": "tiles", "size": size, "overlap": overlap}
        config = an_image_config(Path(name), *rows, split=split, shards=shards)
        report = planned(config)
        found = parts(config)
        assert (report.records, report.parents) == (len(found), 2)
        for part in found:
            about = part["part"]
            image = images[int(about["parent"][1:])]
            box = image[about["y"] : about["y"] + about["height"], about["x"] : about["x"] + about["width"]]
            assert np.array_equal(pixels(part), box)
            assert part["custom_id"] == f"{about['parent']}#{about['position']:04}"
        read = [
            (request.custom_id, pixels(request.body))
            for shard in iter_shards(STORE, config.plan_uri)
            for _, request in read_shard(STORE, shard, config.records, config.model)
        ]
        assert [name for name, _ in read] == [part["custom_id"] for part in found]
        assert read_header(STORE, config.plan_uri).shards <= shards


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_frames_are_what_is_seen_one_after_the_other_with_their_times(kind: str, tmp_path: Path) -> None:
    colors = ["red", "lime", "blue", "white", "black"]
    data = animation(colors, kind)
    config = an_image_config(tmp_path, row("r", image_part(data_url(data))), split={"by": "frames", "size": 1})
    planned(config)
    found = parts(config)
    assert [part["part"]["frame"] for part in found] == list(range(5))
    assert [part["part"]["milliseconds"] for part in found] == [0, 40, 80, 120, 160]
    seen = [tuple(int(value) for value in pixels(part)[0, 0]) for part in found]
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]


def test_a_part_of_several_frames_has_them_all_and_the_last_those_that_are_left(tmp_path: Path) -> None:
    data = animation(["red", "lime", "blue", "white", "black"])
    split = {"by": "frames", "size": 3, "overlap": 1}
    config = an_image_config(tmp_path, row("r", image_part(data_url(data))), split=split)
    planned(config)
    assert [(part["part"]["frame"], len(part["content"])) for part in parts(config)] == [(0, 3), (2, 3)]


def test_an_image_that_does_not_move_is_one_frame(tmp_path: Path) -> None:
    config = an_image_config(tmp_path, row("r", image_part(data_url(picture()))), split=FRAMES)
    assert planned(config).records == 1


def test_a_part_keeps_the_texts_and_fields_of_its_record_and_the_images_go_on_counting(tmp_path: Path) -> None:
    content = [
        {"type": "text", "text": "What is here?"},
        image_part(data_url(picture(size=(16, 8)))),
        sound_part("door.flac"),
        image_part(data_url(picture(size=(8, 8)))),
    ]
    config = an_image_config(tmp_path, row("r", *content, place="door"), split=TILES)
    planned(config)
    found = parts(config)
    assert [part["part"]["position"] for part in found] == [0, 1, 2]
    assert [part["part"]["image"] for part in found] == [0, 0, 1]
    for part in found:
        assert [it["type"] for it in part["content"]] == ["text", "image_url"]
        assert (part["content"][0], part["place"]) == (content[0], "door")


def test_an_image_is_fetched_as_the_input_says(tmp_path: Path) -> None:
    write_files(tmp_path, {"photos/door.png": picture(size=(16, 8))})
    config = an_image_config(tmp_path, row("r", image_part("photos/door.png")), split=TILES)
    assert planned(config).records == 2


def test_a_condition_and_a_limit_are_about_parts_and_whole_records(tmp_path: Path) -> None:
    rows = [row(f"r{n}", image_part(data_url(picture(size=(16, 16))))) for n in range(3)]
    more = {"when": "record.part.y == 0", "limit": 2}
    config = an_image_config(tmp_path, *rows, split=TILES, input=more)
    assert planned(config).records == 4
    assert [part["custom_id"] for part in parts(config)] == ["r0#0000", "r0#0001", "r1#0000", "r1#0001"]


@pytest.mark.parametrize(
    ("content", "split", "code", "param", "said"),
    [
        pytest.param(None, TILES, "split_error", "content", "there must be parts in content", id="a record without parts"),
        pytest.param([{"type": "text", "text": "x"}], TILES, "split_error", "content", "there must be an image in content",
                     id="a record without an image"),
        pytest.param([{"type": "video_url", "video_url": {"url": "a.mp4"}}], FRAMES, "split_error", "content",
                     "a video_url is not decoded here", id="a video by its URL"),
        pytest.param([image_part(data_url(MP4))], FRAMES, "invalid_media", "content[0].image_url.url", "is a video (MP4), which is not",
                     id="a video where an image should be"),
        pytest.param([image_part(data_url(b"\x1a\x45\xdf\xa3" + b"x" * 40))], FRAMES, "invalid_media", "content[0].image_url.url",
                     "WebM or Matroska", id="a video of another kind"),
        pytest.param([image_part(data_url(recording(tone(0.1))))], TILES, "invalid_media", "content[0].image_url.url", "is no image",
                     id="a sound where an image should be"),
        pytest.param([image_part(data_url(animation(["red", "blue"] * 9)[:-60]))], FRAMES, "invalid_media",
                     "content[0].image_url.url", "", id="an animation that breaks off"),
        pytest.param([image_part(data_url(bomb()))], TILES, "media_too_large", "content[0].image_url.url", "very many pixels",
                     id="a decompression bomb"),
        pytest.param([image_part(data_url(picture(size=(900, 900))))], {"by": "tiles", "size": 8}, "media_too_large",
                     "content[0].image_url.url", "has 12769 tiles", id="more tiles than anybody means"),
        pytest.param([image_part("nowhere.png")], TILES, "media_unreachable", "content[0].image_url.url", "there is no such object",
                     id="no such file"),
        pytest.param([{"type": "image_url"}], TILES, "invalid_content", "content[0].image_url", "must be an object", id="no image"),
    ],
)  # fmt: skip
def test_plan_refuses_images_that_cannot_be_split_by_line_and_field(
    tmp_path: Path, content: Any, split: dict[str, Any], code: str, param: str, said: str
) -> None:
    good = row("a", image_part(data_url(picture())))
    bad = orjson.dumps({"custom_id": "b", "content": content}) + b"\n"
    config = an_image_config(tmp_path, good, bad, split=split)
    report = plan(config, None, NOW, no_progress)
    assert [(it.line, it.code, it.param) for it in report.errors] == [(2, code, param)]
    assert said in report.errors[0].message
    assert not list((tmp_path / "out").rglob("parts/*.jsonl")), "of an input that is refused nothing stays"
    assert not (tmp_path / "out/_headrace/owner.json").exists()


def test_plan_finds_an_id_that_is_used_twice_where_it_is_in_the_input(tmp_path: Path) -> None:
    rows = [row(name, image_part(data_url(picture()))) for name in ("a", "b", "a")]
    config = an_image_config(tmp_path, *rows, split=TILES)
    report = plan(config, None, NOW, no_progress)
    assert [(it.line, it.code) for it in report.errors] == [(3, "duplicate_custom_id")]


def test_plan_refuses_more_frames_than_it_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "MOST_PIECES", 3)
    data = animation(["red", "lime", "blue", "white"])
    config = an_image_config(tmp_path, row("r", image_part(data_url(data))), split=FRAMES)
    (error,) = plan(config, None, NOW, no_progress).errors
    assert (error.code, "more than 3 frames" in error.message) == ("media_too_large", True)


def test_plan_refuses_a_part_that_is_larger_than_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partsfile, "MAX_RECORD_BYTES", 200)
    config = an_image_config(
        tmp_path, row("r", image_part(data_url(png(noise(16, 16))))), split={"by": "tiles", "size": 16}
    )
    (error,) = plan(config, None, NOW, no_progress).errors
    assert (error.code, "make input.split.size smaller" in error.message) == ("split_error", True)


def test_plan_asks_again_for_an_image_whose_server_may_answer_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [unreachable("a.example has not answered", retriable=True)] * 2 + [picture(size=(8, 8))]

    def read(_: MediaLibrary, __: str) -> bytes:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, bytes)
        return found

    monkeypatch.setattr(MediaLibrary, "read", read)
    monkeypatch.setattr(imageparts, "WAITS_SECONDS", (0.0, 0.0))
    config = an_image_config(tmp_path, row("r", image_part("https://a.example/x.png")), split=TILES)
    assert planned(config).records == 1


def test_plan_twice_gives_the_same_bytes_and_reads_no_image_again(tmp_path: Path) -> None:
    config = an_image_config(tmp_path, row("r", image_part("door.png")), split=TILES)
    write_files(tmp_path, {"door.png": picture(size=(16, 16))})
    first = planned(config)
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    (tmp_path / "door.png").unlink()
    assert planned(config) == first
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_read_shard_notices_that_the_parts_have_changed(tmp_path: Path) -> None:
    config = an_image_config(tmp_path, row("r", image_part(data_url(picture()))), split=TILES)
    planned(config)
    (file,) = (tmp_path / "out/_headrace/parts").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"position":0', b'"position":9'))
    (shard,) = iter_shards(STORE, config.plan_uri)
    with pytest.raises(JobFailed, match="InputChanged"):
        list(read_shard(STORE, shard, config.records, config.model))


def test_a_batch_over_tiles_has_a_result_for_each_however_often_it_is_killed(tmp_path: Path, zygote: Zygote) -> None:
    uri = (tmp_path / "input.jsonl").as_uri()
    told = {"uri": uri, "format": "jsonl", "split": TILES}
    engine = {"name": "mock", "mock": {"latencyMilliseconds": 100}}
    folder = Folder(tmp_path, {"input": told, "engine": engine, "batching": {"maxBatchSize": 2}})
    image = image_part(data_url(picture(size=(64, 64))))
    folder.write_input(*(row(f"r{n}", image, {"type": "text", "text": "What?"}) for n in range(4)))
    assert zygote.start(folder, Role.PLAN).wait() == ExitCode.DONE
    killed = 0
    for size in (1, 6_000):
        worker = zygote.start(folder, Role.RUN)
        while folder.journal_bytes() < size and not worker.ended():
            time.sleep(0.002)  # the kill may come at any moment; this is no more than the way to one
        worker.kill()
        killed += worker.wait() == -signal.SIGKILL
    folder.fields["engine"] = {"name": "mock"}  # what is left is done quickly
    assert zygote.start(folder, Role.RUN).wait() == ExitCode.DONE
    assert killed == 2
    expected = [f"r{n}#{position:04}" for n in range(4) for position in range(64)]
    assert [line["custom_id"] for line in folder.lines("results")] == expected


def test_reduce_puts_what_was_said_of_frames_together_in_their_order(tmp_path: Path) -> None:
    fields = {"input": {"uri": (tmp_path / "input.jsonl").as_uri(), "format": "jsonl", "split": FRAMES}}
    fan_out = FanOut(tmp_path, fields, aggregation={"type": "reduce", "reduce": {"separator": " "}})
    data = animation(["red", "lime", "blue", "white", "black"])
    fan_out.write_input(*(row(name, image_part(data_url(data))) for name in ("day", "night")))
    assert plan(fan_out.config(), None, CREATED, no_progress).parents == 2
    said = {f"{name}#{n:04}": f"{name}{n}" for name in ("day", "night") for n in range(3)}
    fan_out.answer("one", said, shards=2)
    fan_out.join()
    assert (fan_out.said("day"), fan_out.said("night")) == ("day0 day1 day2", "night0 night1 night2")
    assert fan_out.about("day")["parts"] == {"total": 3, "answered": 3, "missing": {}}


def test_merge_works_on_tiles_as_on_any_record(tmp_path: Path) -> None:
    fields = {"input": {"uri": (tmp_path / "input.jsonl").as_uri(), "format": "jsonl", "split": TILES}}
    fan_out = FanOut(tmp_path, fields, aggregation={"type": "merge"})
    fan_out.write_input(row("r", image_part(data_url(picture(size=(16, 8))))))
    fan_out.plan_as_it_is()
    fan_out.answer("one", {"r#0000": '{"a": 1}', "r#0001": '{"a": 2}'})
    fan_out.answer("two", {"r#0000": '{"b": 3}', "r#0001": '{"b": 4}'})
    fan_out.join()
    assert [orjson.loads(fan_out.said(name)) for name in ("r#0000", "r#0001")] == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]


def test_pieces_hold_no_more_of_an_animation_than_a_part_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames after the part that is wanted have not been looked at yet."""
    decoded: list[Image.Image] = []

    def upright(image: Image.Image) -> Image.Image:
        decoded.append(image)
        return images.upright(image)

    monkeypatch.setattr(cutting, "upright", upright)
    found = cutting.pieces(animation(["red", "lime", "blue", "white", "black"] * 4), Split(by=SplitBy.FRAMES, size=4))
    next(found)
    assert len(decoded) == 4
