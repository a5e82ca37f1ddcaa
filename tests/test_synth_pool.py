from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import write_image
from PIL import Image
from tiny_synth import tiny_config, tiny_data

from cluster.pools.make import check_phase_one
from rlcas.config import RunConfig
from rlcas.data.masks import mask_note
from rlcas.errors import UserError
from rlcas.seeding import seed_for
from rlcas.settings import override
from rlcas.storage.atomic import sha256_of
from rlcas.types import SplitRecord
from synth.generate import fill_pool
from synth.ldm.sampler import load_pipeline
from synth.ldm.train import train_synthesiser
from synth.manifest import CLOCK_TICKS_NS
from synth.own_images import import_folder, masks_left_out
from synth.pool import COPIES_FILE, PoolWriter, SyntheticPool, mark_copies

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def synthesiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    train_synthesiser(tiny_data(), tiny_config(), folder, device=CPU, progress=False)
    return folder


def fill(synthesiser: Path, folder: Path, sizes: list[int], **generation: float) -> SyntheticPool:
    fill_pool(synthesiser, folder, sizes, tiny_config(generation=generation), device=CPU, progress=False)
    return SyntheticPool(folder)


def stored(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): sha256_of(file) for file in folder.rglob("*.npy")}


def written(folder: Path) -> SyntheticPool:
    """Return a pool of 5 and 2 images, in shards of 3; image i of class c is filled with 10 c + i."""
    writer = PoolWriter(
        folder, class_names=("a", "b"), image_shape_CHW=(1, 4, 4), shard_images=3, source={"seed": 0}
    )
    for class_id, span in writer.missing([5, 2]):
        values = 10 * class_id + np.array(span, np.uint8)
        writer.write(class_id, span, np.broadcast_to(values[:, None, None, None], (len(span), 1, 4, 4)))
    writer.commit([5, 2])
    return SyntheticPool(folder)


def test_an_image_does_not_depend_on_how_many_are_made_or_in_which_shards(
    synthesiser: Path, tmp_path: Path
) -> None:
    small = fill(synthesiser, tmp_path / "small", [10, 3])
    large = fill(synthesiser, tmp_path / "large", [20, 10], shard_images=5)
    for class_id, size in enumerate((10, 3)):
        images = small.images(class_id, np.arange(size))
        np.testing.assert_array_equal(images, large.images(class_id, np.arange(size)))
        assert len({image.tobytes() for image in images}) == size
    assert not np.array_equal(small.images(0, np.arange(3)), small.images(1, np.arange(3)))


def test_an_image_is_drawn_from_the_seed_of_its_class_and_number(synthesiser: Path, tmp_path: Path) -> None:
    own = load_pipeline(synthesiser / "pipeline", CPU)
    seeds = [seed_for(0, "synthetic-image", 1, number) for number in range(4)]
    (images,) = own(
        [1] * 4,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=2,
        guidance_scale=1.5,
        output_type="pt",
        return_dict=False,
    )
    made = fill(synthesiser, tmp_path, [1, 4]).images(1, np.arange(4))
    np.testing.assert_array_equal(made, (images * 255).round().to(torch.uint8).numpy())


def test_a_lost_shard_is_sampled_again_with_the_same_bytes_and_the_others_stay(
    synthesiser: Path, tmp_path: Path
) -> None:
    fill(synthesiser, tmp_path, [8, 4])
    before = stored(tmp_path)
    kept, lost = tmp_path / "class-000/shard-000.npy", tmp_path / "class-000/shard-001.npy"
    modified = kept.stat().st_mtime_ns
    lost.unlink()
    (tmp_path / "manifest.json").unlink()
    fill(synthesiser, tmp_path, [8, 4])
    assert stored(tmp_path) == before
    assert kept.stat().st_mtime_ns == modified


def test_a_pool_may_grow(synthesiser: Path, tmp_path: Path) -> None:
    first = fill(synthesiser, tmp_path, [4, 4]).images(1, np.arange(4))
    grown = fill(synthesiser, tmp_path, [4, 9])
    assert grown.class_sizes_C.tolist() == [4, 9]
    np.testing.assert_array_equal(grown.images(1, np.arange(4)), first)


def test_the_manifest_records_the_origin_of_the_images(synthesiser: Path, tmp_path: Path) -> None:
    manifest = fill(synthesiser, tmp_path, [2, 7]).manifest
    assert manifest["class_names"] == ["round", "spiky"] and manifest["image_shape_CHW"] == (1, 20, 20)
    assert manifest["source"] | {"pipeline_sha256": ""} == {
        "pipeline_sha256": "",
        "generator": "ldm",
        "scheduler": "UniPCMultistepScheduler",
        "seed": 0,
        "steps": 2,
        "guidance": 1.5,
        "guidance_interval": [0.0, 1.0],
        "micro_batch": 4,
        "threads": 1,
    }
    assert [shard["count"] for shard in manifest["shards"]] == [2, 6, 1]


def test_a_pool_with_other_settings_is_not_overwritten(synthesiser: Path, tmp_path: Path) -> None:
    fill(synthesiser, tmp_path, [2, 2])
    with pytest.raises(UserError, match="another origin or of other settings: name another folder, or delete"):
        fill(synthesiser, tmp_path, [2, 2], guidance=2.0)


def test_a_synthesiser_that_is_missing_or_has_other_classes_is_refused(
    synthesiser: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match="none/pipeline holds no synthesiser: train one with `rlcas synth train`"
    ):
        fill(tmp_path / "none", tmp_path / "pool", [1, 1])
    damaged = tmp_path / "damaged"
    shutil.copytree(synthesiser, damaged)
    unet = damaged / "pipeline" / "unet"
    weights, config = unet / "diffusion_pytorch_model.safetensors", unet / "config.json"
    message = r"damaged/pipeline cannot be loaded as a synthesiser \(.+\): train one again"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"num_class_embeds": 5}))
    with pytest.raises(UserError, match=message):
        fill(damaged, tmp_path / "pool", [1, 1])
    config.write_text(json.dumps(settings))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=message):
        fill(damaged, tmp_path / "pool", [1, 1])
    with pytest.raises(UserError, match="makes 2 classes, but 3 are asked for"):
        fill(synthesiser, tmp_path / "pool", [1, 1, 1])


def test_images_are_read_across_shards_in_the_requested_order(tmp_path: Path) -> None:
    pool = written(tmp_path)
    assert pool.class_sizes_C.tolist() == [5, 2]
    assert pool.images(0, np.array([4, 0, 3, 3]))[:, 0, 0, 0].tolist() == [4, 0, 3, 3]
    assert pool.images(1, np.array([1]))[:, 0, 3, 3].tolist() == [11]
    assert pool.images(1, np.array([], np.int64)).shape == (0, 1, 4, 4)
    for index in (-1, 5):
        with pytest.raises(IndexError, match="class 0 has images 0 to 4"):
            pool.images(0, np.array([index]))


def test_a_pool_with_a_missing_or_damaged_manifest_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    manifest = tmp_path / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"schema_version": 99}))
    with pytest.raises(
        UserError, match="has schema_version 99, this rlcas reads 1: delete the pool and make it"
    ):
        SyntheticPool(tmp_path)
    for text in ("{", "[]", json.dumps({"schema_version": 1})):
        manifest.write_text(text)
        with pytest.raises(UserError, match=r"manifest\.json is not a pool's manifest \(.+\): delete the pool"):
            SyntheticPool(tmp_path)
    manifest.unlink()
    with pytest.raises(UserError, match=r"manifest\.json is missing, so .* is not a finished pool"):
        SyntheticPool(tmp_path)


def test_a_missing_or_altered_shard_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    shard = tmp_path / "class-000" / "shard-001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + b"\x07")
    with pytest.raises(
        UserError, match=r"shard-001\.npy is not the file .* \(sha256 differs\): delete the pool"
    ):
        SyntheticPool(tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-001\.npy is missing, though the pool's manifest lists it"):
        SyntheticPool(tmp_path)


def test_a_manifest_that_leads_out_of_the_pool_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "pool")
    manifest = tmp_path / "pool" / "manifest.json"
    content = json.loads(manifest.read_text())
    for file in ("../class-000/shard-000.npy", "/etc/shard-000.npy", "class-000/../../shard-000.npy"):
        content["shards"][0]["file"] = file
        manifest.write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"is not a pool's manifest \(shards.0.file: .*pattern"):
            SyntheticPool(tmp_path / "pool")
    content["shards"][0] |= {"file": "class-000/shard-000.npy", "class_id": 2}
    manifest.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"is not a pool's manifest \(a shard's class_id is not one of its classes\)"
    ):
        SyntheticPool(tmp_path / "pool")


def settled(folder: Path) -> Path:
    """Make the record of the verification later than the shards by more than the clock's ticks."""
    later = time.time_ns() + 10 * CLOCK_TICKS_NS
    os.utime(folder / "verified.json", ns=(later, later))
    return folder


def test_shards_are_hashed_once_and_again_only_when_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    hashed = []
    monkeypatch.setattr("synth.manifest.sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
    (tmp_path / "verified.json").unlink()
    SyntheticPool(tmp_path)
    assert len(hashed) == 3
    SyntheticPool(settled(tmp_path))
    assert len(hashed) == 3
    os.utime(tmp_path / "class-000/shard-000.npy")
    SyntheticPool(tmp_path)
    assert len(hashed) == 6
    (settled(tmp_path) / "verified.json").write_text("{")
    SyntheticPool(tmp_path)
    assert len(hashed) == 9


def test_the_writer_has_checked_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.setattr("synth.manifest.sha256_of", None)
    SyntheticPool(settled(tmp_path))


def test_an_altered_shard_whose_times_were_set_back_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    shard = settled(tmp_path) / "class-000" / "shard-001.npy"
    before = shard.stat()
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x07")
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match="sha256 differs"):
        SyntheticPool(tmp_path)


def test_a_verification_within_the_clocks_tick_is_not_trusted(tmp_path: Path) -> None:
    """A shard written after its check, within the same tick, has the same times."""
    written(tmp_path)
    changed = max(file.stat().st_ctime_ns for file in tmp_path.rglob("*.npy"))
    os.utime(tmp_path / "verified.json", ns=(changed, changed))
    verified = (tmp_path / "verified.json").stat().st_mtime_ns
    SyntheticPool(tmp_path)
    assert (tmp_path / "verified.json").stat().st_mtime_ns > verified


def test_a_pool_on_a_read_only_disk_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    (tmp_path / "verified.json").unlink()

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("rlcas.storage.atomic.tempfile.mkstemp", refuse)
    assert SyntheticPool(tmp_path).class_sizes_C.tolist() == [5, 2]
    assert not (tmp_path / "verified.json").exists()


def test_shards_that_are_truncated_or_not_as_listed_are_written_again(
    synthesiser: Path, tmp_path: Path
) -> None:
    fill(synthesiser, tmp_path, [8, 4])
    before = stored(tmp_path)
    cut, altered = tmp_path / "class-000/shard-000.npy", tmp_path / "class-001/shard-000.npy"
    cut.write_bytes(cut.read_bytes()[:200])
    altered.write_bytes(altered.read_bytes()[:-1] + b"\x07")
    (tmp_path / "class-000" / ".shard-000.npy.abc.tmp").write_bytes(b"left by a killed process")
    fill(synthesiser, tmp_path, [8, 4])
    assert stored(tmp_path) == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(
        UserError, match=r"plan\.json is not a pool's plan \(.+\): delete the pool and make it again"
    ):
        written(tmp_path)


READER = """
import sys
from pathlib import Path
import numpy as np
from synth.pool import SyntheticPool

pool = SyntheticPool(Path(sys.argv[1]))
for class_id, size in enumerate(pool.class_sizes_C):
    assert pool.images(class_id, np.arange(size)).any()
print("read", flush=True)
sys.stdin.read()
"""


@pytest.mark.medium
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="/proc/PID/smaps is Linux's")
def test_three_readers_on_a_machine_share_the_pools_pages(tmp_path: Path) -> None:
    images_NCHW = np.random.default_rng(0).integers(0, 256, (64, 1, 256, 256), dtype=np.uint8)
    writer = PoolWriter(
        tmp_path, class_names=("a", "b"), image_shape_CHW=(1, 256, 256), shard_images=64, source={}
    )
    for class_id, span in writer.missing([64, 64]):
        writer.write(class_id, span, images_NCHW)
    writer.commit([64, 64])
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        assert all(reader.stdout.readline() == "read\n" for reader in readers)
        for reader in readers:
            pages = mapped_kilobytes(reader.pid, tmp_path)
            assert pages["Rss"] >= 2 * 64 * 64 and pages["Pss"] <= pages["Rss"] / 2.5
            assert pages["Private_Dirty"] == pages["Private_Clean"] == 0
    finally:
        for reader in readers:
            reader.communicate("")


def mapped_kilobytes(pid: int, folder: Path) -> dict[str, int]:
    """Return the sums over the maps of files in `folder`, as the kernel reports them."""
    totals = dict.fromkeys(("Rss", "Pss", "Private_Dirty", "Private_Clean"), 0)
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if "-" in key.split()[0]:
            inside = str(folder) in line
        elif inside and key in totals:
            totals[key] += int(value.split()[0])
    return totals


def test_a_shard_of_another_shape_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    shard = tmp_path / "class-001" / "shard-000.npy"
    np.save(shard, np.zeros((2, 1, 5, 4), np.uint8))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["shards"][-1]["sha256"] = sha256_of(shard)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"holds uint8 \[2, 1, 5, 4\], but the pool's manifest says 2 uint8"):
        SyntheticPool(tmp_path)


def test_a_pool_for_other_classes_or_another_shape_is_refused(tmp_path: Path) -> None:
    pool = written(tmp_path)
    pool.require(("a", "b"), (1, 4, 4))
    with pytest.raises(
        UserError, match=r"has classes \['a', 'b'\], the data set \['b', 'a'\]: make a pool for it"
    ):
        pool.require(("b", "a"), (1, 4, 4))
    with pytest.raises(UserError, match=r"has images of shape \[1, 4, 4\], the data set \[3, 4, 4\]"):
        pool.require(("a", "b"), (3, 4, 4))


def own_images(folder: Path, names: tuple[str, str] = ("a", "b")) -> Path:
    """Return a folder of 2 gray images of the first class, and a 16-bit and an RGB image of the second."""
    first, second = (folder / name for name in names)
    for class_folder in (first, second):
        class_folder.mkdir(parents=True)
        (class_folder / "._0.png").write_bytes(b"macOS's own")
    for index in range(2):
        Image.fromarray(np.full((8, 8), 50 * index + 7, np.uint8)).save(first / f"{index}.png")
    Image.fromarray(np.full((4, 4), 200 * 257, np.uint16)).save(second / "0.png")
    Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).save(second / "1.png")
    return folder


@pytest.mark.parametrize("names", [("a", "b"), ("0", "1")])
def test_own_images_become_a_pool_of_the_data_sets_shape(tmp_path: Path, names: tuple[str, str]) -> None:
    pool = import_folder(own_images(tmp_path / "own", names), tmp_path / "pool", ("a", "b"), (1, 4, 4))
    assert pool.class_sizes_C.tolist() == [2, 2] and pool.image_shape_CHW == (1, 4, 4)
    assert pool.images(0, np.arange(2))[:, 0, 0, 0].tolist() == [7, 57]
    assert pool.images(1, np.arange(2))[:, 0, 3, 3].tolist() == [200, 90]
    again = SyntheticPool(tmp_path / "pool")
    assert again.manifest["source"]["folder"] == str(tmp_path / "own")


def test_own_images_of_several_frames_give_the_one_that_is_set(tmp_path: Path) -> None:
    own = own_images(tmp_path / "own")
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (1, 2, 3)]
    pages[0].save(own / "a" / "2.tif", save_all=True, append_images=pages[1:])
    pool = import_folder(own, tmp_path / "pool", ("a", "b"), (1, 4, 4), frame=3)
    assert pool.images(0, np.array([2]))[0, 0, 0, 0] == 3
    with pytest.raises(
        UserError, match=r"2.tif has 3 pages: save each page as a file, or choose one with --dataset"
    ):
        import_folder(own, tmp_path / "none", ("a", "b"), (1, 4, 4))


def test_masks_beside_own_images_are_left_out_or_kept(tmp_path: Path) -> None:
    own = own_images(tmp_path / "own")
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(own / "a" / "1_mask.png")
    assert masks_left_out(own, ("a", "b")) == mask_note(["a/1_mask.png"])
    pool = import_folder(own, tmp_path / "pool", ("a", "b"), (1, 4, 4))
    assert pool.class_sizes_C.tolist() == [2, 2]
    pool = import_folder(own, tmp_path / "all", ("a", "b"), (1, 4, 4), keep_masks=True)
    assert pool.class_sizes_C.tolist() == [3, 2] and pool.images(0, np.arange(3))[:, 0, 0, 0].max() == 255


def test_masks_beside_own_images_are_noted_before_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_data()
    for c, name in enumerate(data.class_names):
        for end in ("", "_mask"):
            write_image(tmp_path / name / f"0{end}.png", np.full((8, 8), c, np.uint8))
    config = RunConfig(pool=f"folder:{tmp_path}")
    nothing = SplitRecord(class_names=data.class_names, parts={}, window=None)
    check_phase_one(config, data, nothing)
    assert f"they are masks of pictures beside them: {data.num_classes} (" in "".join(capsys.readouterr())
    check_phase_one(override(config, {"dataset.masks": "keep"}), data, nothing)
    assert "masks" not in "".join(capsys.readouterr())


def test_a_folder_with_the_name_of_a_class_is_not_taken_for_the_number_of_another(tmp_path: Path) -> None:
    own = own_images(tmp_path / "own", ("0", "1"))
    with pytest.raises(UserError, match="own has no folder '2' with images of class '2': add one"):
        import_folder(own, tmp_path / "pool", ("1", "2"), (1, 4, 4))


def test_own_images_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    own = own_images(tmp_path / "own")
    with pytest.raises(UserError, match="own has no folder 'c' with images of class 'c': add one"):
        import_folder(own, tmp_path / "pool", ("a", "b", "c"), (1, 4, 4))
    with pytest.raises(UserError, match="own has no folder 'd' or '0' with images of class 'd': add one"):
        import_folder(own, tmp_path / "pool", ("d", "e"), (1, 4, 4))
    (own / "c").mkdir()
    with pytest.raises(UserError, match=r"c has no images \(\.png.*\): add some"):
        import_folder(own, tmp_path / "pool", ("a", "b", "c"), (1, 4, 4))
    (own / "c" / "x").write_bytes(b"")
    with pytest.raises(UserError, match=r"c has no images but 1 files without suffix \(\.png.*\): add some"):
        import_folder(own, tmp_path / "pool", ("a", "b", "c"), (1, 4, 4))
    (own / "a" / "2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2\.png cannot be read as an image"):
        import_folder(own, tmp_path / "pool", ("a", "b"), (1, 4, 4))
    assert not (tmp_path / "pool" / "manifest.json").exists()


def test_marked_copies_are_skipped_and_the_others_numbered_without_gaps(tmp_path: Path) -> None:
    written(tmp_path)
    mark_copies(tmp_path, [np.array([0, 3]), np.array([], np.int64)], {"why": "near"})
    pool = SyntheticPool(tmp_path)
    assert pool.class_sizes_C.tolist() == [3, 2]
    assert pool.images(0, np.array([2, 0, 1]))[:, 0, 0, 0].tolist() == [4, 1, 2]
    assert pool.images(1, np.array([1]))[:, 0, 0, 0].tolist() == [11]
    with pytest.raises(IndexError, match="class 0 has images 0 to 2, not"):
        pool.images(0, np.array([3]))
    everything = SyntheticPool(tmp_path, with_copies=True)
    assert everything.class_sizes_C.tolist() == [5, 2]
    assert [copies.tolist() for copies in everything.copies_C] == [[0, 3], []]
    assert json.loads((tmp_path / COPIES_FILE).read_text())["why"] == "near"


def test_marks_may_be_in_another_folder_than_the_pool(tmp_path: Path) -> None:
    written(tmp_path / "pool")
    mark_copies(tmp_path / "pool", [np.array([1]), np.array([0])], {}, marks_folder=tmp_path / "run")
    assert SyntheticPool(tmp_path / "pool").class_sizes_C.tolist() == [5, 2]
    assert SyntheticPool(tmp_path / "pool", marks_folder=tmp_path / "run").class_sizes_C.tolist() == [4, 1]


def test_a_pool_that_is_written_to_again_loses_its_marks(tmp_path: Path) -> None:
    written(tmp_path)
    mark_copies(tmp_path, [np.array([0]), np.array([0])], {})
    (tmp_path / "class-000/shard-001.npy").unlink()
    assert written(tmp_path).class_sizes_C.tolist() == [5, 2]


@pytest.mark.parametrize(
    ("copies", "message"),
    [
        (
            [[5], []],
            r"copies\.json marks the copies of another pool than .*: delete it, and the pool is scored",
        ),
        ([[-1], []], "marks the copies of another pool than"),
        ([[0]], "marks the copies of another pool than"),
        ([[1, 1], []], "marks the copies of another pool than"),
        ([[[1]], []], "marks the copies of another pool than"),
        ([[], [0, 1]], "marks the copies of another pool than"),
        ([[10**30], []], r"copies\.json does not hold a pool's marks"),
        ([["x"], []], r"copies\.json does not hold a pool's marks: delete it, and the pool is scored again$"),
    ],
)
def test_marks_that_cannot_be_this_pools_are_refused(copies: list, message: str, tmp_path: Path) -> None:
    written(tmp_path)
    mark_copies(tmp_path, copies, {})
    with pytest.raises(UserError, match=message):
        SyntheticPool(tmp_path)


def test_marks_of_another_manifest_are_refused(tmp_path: Path) -> None:
    written(tmp_path)
    mark_copies(tmp_path, [np.array([0]), np.array([], np.int64)], {})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "source": {"seed": 1}}))
    with pytest.raises(UserError, match="marks the copies of another pool than"):
        SyntheticPool(tmp_path)
