# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import io
import os
import pickle
import tarfile
from itertools import takewhile

import datasets
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import constants

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import AudioError, decode_audio, stream_audio, stream_waveform
from transformers_beats.fbank_beats import kaldi_fbank
from transformers_beats.training.data.clips import prepare_clips
from transformers_beats.training.data.crops import (
    CropDataset,
    DataCollator,
    FbankDataset,
    fbank_statistics,
    featurize,
)
from transformers_beats.training.data.labelled import Windows
from transformers_beats.training.data.sources import DataArguments, decode_row, load_audio_dataset
from transformers_beats.training.data.streams import StreamingCrops
from transformers_beats.training.fbank_statistics import main as statistics_main
from transformers_beats.utils.errors import BeatsError


LENGTHS = [16000, 24000, 8000, 40000]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    """Four clips of noise at 16 kHz in two class folders."""
    folder = tmp_path / "sounds"
    generator = np.random.default_rng(0)
    for index, length in enumerate(LENGTHS):
        path = folder / ("cat" if index % 2 else "dog") / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * generator.standard_normal(length), 16000, subtype="FLOAT")
    return folder


def arguments(path, **kwargs) -> DataArguments:
    return DataArguments(dataset=str(path), **{"crop_seconds": 1.0, "num_crops": 1} | kwargs)


def clips_of(path, **kwargs):
    data = arguments(path, **kwargs)
    return prepare_clips(load_audio_dataset(data), data, 16000), data


def first_epoch(crops) -> list[dict]:
    """The items of a stream in its first epoch."""
    return list(takewhile(lambda item: item["position"]["places"][0].epoch == 0, crops))


def to_parquet(folder, target, feature):
    target.mkdir()
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(folder.rglob("*.wav"))]
    plain = datasets.Features({"sound": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    dataset = datasets.Dataset.from_dict({"sound": rows}, features=plain)
    if feature:
        dataset = dataset.cast_column("sound", datasets.Audio(decode=False))
    dataset.to_parquet(target / "part-0.parquet")
    return target


def to_tar(folder, target):
    target.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        with tarfile.open(target / f"shard-{number % 2}.tar", "a") as archive:
            archive.add(path, arcname=f"{number}.wav")
            text = io.BytesIO(b"{}")
            info = tarfile.TarInfo(f"{number}.json")
            info.size = 2
            archive.addfile(info, text)
    return target


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["folder", "parquet of Audio", "parquet of structs", "tar"])
def test_every_kind_of_data_set_gives_the_same_clips(kind, streaming, folder, tmp_path):
    source = folder
    if kind.startswith("parquet"):
        source = to_parquet(folder, tmp_path / "parquet", feature=kind.endswith("Audio"))
    elif kind == "tar":
        source = to_tar(folder, tmp_path / "tar")
    data = arguments(source, streaming=streaming, crop_seconds=10.0)
    dataset = load_audio_dataset(data)
    if streaming:
        waveforms = [item["waveform"] for item in first_epoch(StreamingCrops([dataset], data))]
    else:
        crops = CropDataset(prepare_clips(dataset, data, 16000), data)
        waveforms = [crops[index]["waveform"] for index in range(len(crops))]
    assert sorted(len(waveform) for waveform in waveforms) == sorted(LENGTHS)
    expected = sorted(float(np.abs(soundfile.read(path)[0]).sum()) for path in folder.rglob("*.wav"))
    np.testing.assert_allclose(sorted(np.abs(waveform).sum() for waveform in waveforms), expected, rtol=1e-5)


def test_metadata_names_the_files_and_columns_select_them(folder):
    lines = [f"{path.relative_to(folder)},{index % 2}" for index, path in enumerate(sorted(folder.rglob("*.wav")))]
    (folder / "metadata.csv").write_text("file_name,fold\n" + "\n".join(lines))
    assert len(load_audio_dataset(arguments(folder))) == 4
    selected = load_audio_dataset(arguments(folder, select={"fold": [1]}))
    assert selected["fold"] == ["1", "1"]
    assert len(load_audio_dataset(arguments(folder, select={"fold": 0}))) == 2
    with pytest.raises(ValueError, match="'speaker', but there are file_name, fold"):
        load_audio_dataset(arguments(folder, select={"speaker": [1]}))


@pytest.mark.parametrize(
    ("path", "message"),
    [("/no/such/folder", "no such file or folder"), ("./absent", "no such file or folder")],
)
def test_a_folder_that_is_not_there_is_no_hub_id(path, message):
    with pytest.raises(ValueError, match=message):
        load_audio_dataset(arguments(path))


def test_a_data_set_that_the_hub_does_not_give_is_refused(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"^nobody/nothing: no such file or folder here, and from the Hub"):
        load_audio_dataset(DataArguments(dataset="nobody/nothing"))


def test_a_folder_without_audio_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="holds no audio files"):
        load_audio_dataset(arguments(tmp_path))


def test_a_missing_audio_column_is_named(folder, tmp_path):
    source = to_parquet(folder, tmp_path / "parquet", feature=False)
    with pytest.raises(ValueError, match="no column 'wave', only sound"):
        load_audio_dataset(arguments(source, audio_column="wave"))


@pytest.mark.parametrize("streaming", [False, True])
def test_unreadable_and_short_clips_are_skipped_and_counted(streaming, folder, caplog):
    (folder / "broken.wav").write_bytes(b"RIFF nonsense")
    (folder / "empty.mp3").touch()
    soundfile.write(folder / "short.wav", np.zeros(100), 16000)
    # To open these would block.
    os.mkfifo(folder / "dog" / "pipe.wav")
    (folder / "linked.wav").symlink_to(folder / "dog" / "pipe.wav")
    data = arguments(folder, streaming=streaming, read_attempts=1)
    names = ("broken.wav", "empty.mp3", "short.wav", "dog/pipe.wav", "linked.wav")
    if streaming:
        crops = StreamingCrops([load_audio_dataset(data)], data)
        assert len(first_epoch(crops)) == 4
        # And perhaps some of the next epoch.
        assert crops.num_skipped >= 5
        assert all(name in caplog.text for name in names)
        return
    clips, data = clips_of(folder)
    assert clips.num_skipped == 5
    assert "5 of 9 clips are skipped: " in caplog.text
    assert all(name in caplog.text for name in names)
    assert caplog.text.count("is no file that can be read again, but a folder, a pipe or a device.") == 2
    assert sorted(clips.num_samples) == sorted(LENGTHS)
    assert len(CropDataset(clips, data)) == 4


def test_nothing_but_unreadable_clips_is_an_error(tmp_path):
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(ValueError, match="none of 1 clips"):
        clips_of(tmp_path / "sounds")


def test_checks_are_cached_until_a_file_changes(folder, monkeypatch):
    clips_of(folder)
    calls = []
    monkeypatch.setattr(
        "transformers_beats.training.data.sources.stream_audio",
        lambda *args: calls.append(args) or stream_waveform(np.linspace(0, 1, 9000), 16000),
    )
    clips_of(folder)
    assert calls == []
    soundfile.write(folder / "dog" / "0.wav", np.ones(9000), 16000)
    clips_of(folder)
    assert len(calls) == 1


def test_a_failure_is_not_cached(folder, monkeypatch):
    def fail(*args):
        raise AudioError("the disk is not mounted")

    path = "transformers_beats.training.data.sources.stream_audio"
    with monkeypatch.context() as patch:
        patch.setattr(path, lambda source, *args: fail() if source.endswith("2.wav") else stream_audio(source, *args))
        assert clips_of(folder)[0].num_skipped == 1
    calls = []
    monkeypatch.setattr(path, lambda source, *args: calls.append(source) or stream_audio(source, *args))
    clips, _ = clips_of(folder)
    assert (clips.num_skipped, sorted(clips.num_samples)) == (0, sorted(LENGTHS))
    assert [call.rpartition("/")[2] for call in calls] == ["2.wav"]
    assert clips.names[clips.num_samples.argmin()] == "dog/2.wav"


@pytest.mark.parametrize("change", ["package", "decoder"])
def test_caches_know_the_versions_of_package_and_decoders(change, folder, monkeypatch):
    extractor = BeatsFeatureExtractor()
    FbankDataset(CropDataset(*clips_of(folder, cache_audio=True)), extractor)
    calls = []
    monkeypatch.setattr(
        "transformers_beats.training.data.sources.stream_audio",
        lambda *args: calls.append(args) or stream_audio(*args),
    )
    clips, data = clips_of(folder, cache_audio=True)
    FbankDataset(CropDataset(clips, data), extractor)
    assert calls == []
    if change == "package":
        monkeypatch.setattr("transformers_beats.__version__", "0.0.0")
    else:
        monkeypatch.setattr("transformers_beats.training.data.manifest._version", lambda package: "99.0")
    clips, data = clips_of(folder, cache_audio=True)
    # Checked, and decoded.
    assert len(calls) == 8
    FbankDataset(CropDataset(clips, data), extractor)
    assert len(calls) == 12


# Crops


def test_long_clips_have_as_many_crops_as_fit(folder):
    # At 16 kHz: 1, 1.5, 0.5 and 2.5 s.
    clips, data = clips_of(folder, num_crops=None)
    crops = CropDataset(clips, data)
    assert len(crops) == 1 + 1 + 1 + 2
    assert sorted(len(crops[index]["waveform"]) for index in range(len(crops))) == [8000] + 4 * [16000]
    fbanks = FbankDataset(crops, BeatsFeatureExtractor())
    assert len(fbanks) == len(crops)
    for index in range(len(crops)):
        expected = BeatsFeatureExtractor()(crops[index]["waveform"], sampling_rate=16000)["input_values"][0]
        torch.testing.assert_close(fbanks[index]["input_values"], torch.from_numpy(expected), rtol=0, atol=1e-5)


def test_the_fingerprint_of_crops_follows_names_and_lengths(folder):
    crops = CropDataset(*clips_of(folder))
    assert CropDataset(*clips_of(folder)).fingerprint == crops.fingerprint
    (folder / "dog" / "0.wav").rename(folder / "dog" / "9.wav")
    renamed = CropDataset(*clips_of(folder)).fingerprint
    soundfile.write(folder / "dog" / "9.wav", np.ones(9000), 16000)
    assert len({crops.fingerprint, renamed, CropDataset(*clips_of(folder)).fingerprint}) == 3


def test_crops_are_the_same_in_every_stage(folder):
    clips, data = clips_of(folder, crop_seconds=0.5, num_crops=3, crop_seed=7)
    first, second = CropDataset(clips, data), CropDataset(clips_of(folder)[0], data)
    assert len(first) == 12
    for index in range(12):
        assert first[index]["waveform"].shape == (8000,)
        np.testing.assert_array_equal(first[index]["waveform"], second[index]["waveform"])
    # Different crops of a clip, and different crops with another seed.
    assert not np.array_equal(first[0]["waveform"], first[1]["waveform"])
    other = CropDataset(clips, arguments(folder, crop_seconds=0.5, num_crops=3, crop_seed=8))
    assert not np.array_equal(first[0]["waveform"], other[0]["waveform"])


def make_codes(num_columns: list[int]) -> datasets.Dataset:
    features = datasets.Features({"codes": datasets.Array2D((None, 8), "int16")})
    rows = [np.full((count, 8), index, dtype=np.int16) for index, count in enumerate(num_columns)]
    return datasets.Dataset.from_dict({"codes": rows}, features=features)


@pytest.mark.parametrize("cache_audio", [False, True])
def test_items_are_parts_of_long_clips(cache_audio, tmp_path, monkeypatch):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 44100 * 60)
    (tmp_path / "long").mkdir()
    soundfile.write(tmp_path / "long" / "clip.wav", wave, 44100, subtype="FLOAT")
    clips, data = clips_of(tmp_path / "long", num_crops=4, cache_audio=cache_audio)
    whole = decode_audio(tmp_path / "long" / "clip.wav")
    crops, windows = CropDataset(clips, data), Windows(clips, data, BeatsFeatureExtractor())
    num_read = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames, **kwargs: num_read.append(frames) or read(self, frames, **kwargs),
    )
    np.testing.assert_allclose(windows[7]["waveform"], whole[7 * 16000 : 8 * 16000], rtol=0, atol=1e-6)
    places = set()
    for item in (crops[index]["waveform"] for index in range(4)):
        place = int(np.abs(whole - item[0]).argmin())
        np.testing.assert_allclose(item, whole[place : place + 16000], rtol=0, atol=1e-6)
        places.add(place)
    assert len(places) == 4
    # Up to three seconds for each item of one: what comes before, and whole blocks.
    assert sum(num_read) <= (0 if cache_audio else 5 * 3 * 44100)


@pytest.mark.parametrize("precompute", [False, True])
def test_items_come_with_their_codes(precompute, folder):
    clips, data = clips_of(folder)
    crops = CropDataset(clips, data, make_codes([6, 6, 3, 6]))
    items = FbankDataset(crops, BeatsFeatureExtractor()) if precompute else crops
    assert [items[index]["labels"].unique().tolist() for index in range(4)] == [[0], [1], [2], [3]]
    assert items[2]["labels"].dtype == torch.int64
    with pytest.raises(ValueError, match="3 rows of codes for 4 crops"):
        CropDataset(clips, data, make_codes([6, 6, 3]))


def test_fbanks_computed_once_are_those_computed_in_every_step(folder):
    extractor = BeatsFeatureExtractor()
    clips, data = clips_of(folder, num_crops=2)
    crops = CropDataset(clips, data, make_codes([6] * 8))
    fbanks = FbankDataset(crops, extractor)
    assert len(fbanks) == len(crops) == 8
    collator = DataCollator(extractor, data.crop_seconds)
    expected = featurize(collator([crops[index] for index in range(8)]), extractor, "cpu")
    actual = featurize(collator([fbanks[index] for index in range(8)]), extractor, "cpu")
    assert actual.keys() == expected.keys() == {"input_values", "attention_mask", "labels"}
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, check_dtype=False, rtol=0, atol=1e-5)


# Batches


def test_batches_have_the_length_of_a_crop_and_ignore_padding():
    collator = pickle.loads(pickle.dumps(DataCollator(BeatsFeatureExtractor(), 1.0)))
    items = [
        {"waveform": np.ones(16000, dtype=np.float32), "labels": torch.ones(6, 8).long()},
        {"waveform": np.ones(8000, dtype=np.float32), "labels": torch.ones(3, 8).long()},
    ]
    batch = collator(items)
    assert batch["waveforms"].shape == (2, 16000)
    assert batch["num_samples"].tolist() == [16000, 8000]
    assert batch["labels"].shape == (2, 6, 8)
    assert (batch["labels"][1, 3:] == -100).all()
    features = featurize(batch, BeatsFeatureExtractor(), "cpu")
    assert features["attention_mask"].sum(dim=1).tolist() == [98, 48]


def test_a_crop_without_a_patch_is_refused():
    with pytest.raises(ValueError, match="less than a patch of 16"):
        DataCollator(BeatsFeatureExtractor(), 0.1)


def test_rows_without_audio_and_shards_cut_off_are_skipped(folder, tmp_path, caplog):
    to_tar(folder, tmp_path / "tar")
    whole = [row["audio"]["path"] for row in load_audio_dataset(arguments(tmp_path / "tar"))]
    assert len(whole) == 4
    shard = tmp_path / "tar" / "shard-1.tar"
    shard.write_bytes(shard.read_bytes()[:-60_000])
    rest = [row["audio"]["path"] for row in load_audio_dataset(arguments(tmp_path / "tar"))]
    assert set(rest) < set(whole)
    assert "shard-1.tar: the rest of this shard cannot be read" in caplog.text
    for audio in (None, {"bytes": None, "path": None}, {"bytes": b"", "path": None}):
        with pytest.raises(AudioError, match="a row holds no audio"):
            decode_row({"audio": audio}, 16000)


# Statistics


def test_statistics_are_those_of_all_frames(folder):
    clips, data = clips_of(folder, crop_seconds=10.0)
    crops = CropDataset(clips, data)
    mean, std = fbank_statistics(crops, BeatsFeatureExtractor(), num_clips=100)
    frames = torch.cat([kaldi_fbank(torch.from_numpy(crops[index]["waveform"])[None])[0] for index in range(4)])
    assert mean == pytest.approx(frames.mean().item(), abs=1e-4)
    assert std == pytest.approx(frames.std().item(), abs=1e-3)


def test_the_command_stores_statistics_in_an_extractor(folder, tmp_path):
    words = ["--dataset", str(folder), "--output_dir", str(tmp_path / "extractor")]
    statistics_main([*words, "--crop_seconds", "1", "--num_crops", "1"])
    extractor = BeatsFeatureExtractor.from_pretrained(tmp_path / "extractor")
    clips, data = clips_of(folder)
    expected = fbank_statistics(CropDataset(clips, data), BeatsFeatureExtractor(), num_clips=100)
    assert (extractor.fbank_mean, extractor.fbank_std) == expected
    with pytest.raises(ValueError, match="exists already"):
        statistics_main(words)


@pytest.mark.parametrize("with_others", [False, True])
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            np.full(240, 0.1),
            "None of the 2 crops that the statistics of the fbank are taken from is as long as a frame",
        ),
        (np.zeros(16000), "All of the 2 crops that the statistics of the fbank are taken from have the same value"),
    ],
)
def test_statistics_that_are_none_are_refused_in_one_line(samples, message, with_others, folder, tmp_path):
    (tmp_path / "bad").mkdir()
    for number in range(2):
        soundfile.write(tmp_path / "bad" / f"{number}.wav", samples, 16000)
    source, output_dir = str(tmp_path / "bad"), tmp_path / "extractor"
    dataset = str([str(folder), source]) if with_others else source
    words = ["--dataset", dataset, "--min_seconds", "0", "--crop_seconds", "1", "--output_dir", str(output_dir)]
    with pytest.raises(BeatsError, match=message) as caught:
        statistics_main(words)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{source}: ") == with_others
    assert not output_dir.exists()


@pytest.mark.parametrize("is_parquet", [False, True])
def test_clips_that_may_be_bad_are_named_whenever_they_are_used(folder, tmp_path, caplog, is_parquet):
    loud, rate = soundfile.read(folder / "dog" / "0.wav")
    soundfile.write(folder / "dog" / "0.wav", 32768 * loud, rate, subtype="FLOAT")
    source = folder
    if is_parquet:
        source = tmp_path / "parquet"
        to_parquet(folder, source, feature=True)
    # The second time, from the cache.
    for _ in range(2):
        caplog.clear()
        clips, data = clips_of(source)
        (message,) = caplog.messages
        assert message.startswith("1 of 4 clips are used and may be bad: ")
        assert "0.wav: reaches" in message
    caplog.clear()
    crops = CropDataset(clips, data)
    featurize(DataCollator(BeatsFeatureExtractor(), 1.0)([crops[0]]), BeatsFeatureExtractor(), "cpu")
    assert caplog.messages == []
