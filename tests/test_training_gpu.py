"""The GPU benchmark runs from end to end on whatever is here."""

import pytest

pytest.importorskip("torch")

from benchmarks import training_gpu
from star1.errors import SettingError
from star1.shapes import shape_of
from tests.micro import fresh_accelerate


def test_it_runs_at_a_tiny_size_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    fresh_accelerate()
    training_gpu.main(["--quick"])
    text = capsys.readouterr().out
    for found in ("tiny shape", "ours", "published way", "7,615,616,512 weights"):
        assert found in text
    if not torch.cuda.is_available():
        assert "on a CPU (measures nothing)" in text
        assert "not known" in text  # no share of a peak is made up
        with pytest.raises(SettingError, match="no CUDA GPU"):
            training_gpu.main([])
    fresh_accelerate()


def test_shapes_are_those_of_the_bases() -> None:
    assert shape_of(training_gpu.config_of("1.5B")).weights == 1_543_714_304
    assert shape_of(training_gpu.config_of("7B")).weights == 7_615_616_512
