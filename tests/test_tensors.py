"""Our files of tensors are what the safetensors library reads, and damage is found."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from cptsel.pipeline.artifacts.tensors import TensorFile, tensors_sha256, write_tensors
from cptsel.pipeline.errors import UsageError


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"b.weight": (3, 5), "a": (7,), "scalar": (), "nothing": (0, 4), "ünïcode": (2, 2, 2)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(path, tensors, metadata=None):
    write_tensors(str(path), {n: t.shape for n, t in tensors.items()}, iter(tensors.values()), metadata or {"x": "1"})
    return path


def test_the_library_reads_it(tensors, tmp_path):
    found = load_file(write(tmp_path / "t.safetensors", tensors))
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)


def test_tensors_are_read_back_in_order(tensors, tmp_path):
    file = TensorFile(str(write(tmp_path / "t.safetensors", tensors, {"z": "1", "a": "2"})))
    assert list(file.shapes) == list(tensors)
    assert file.metadata == {"a": "2", "z": "1"}
    assert all(np.array_equal(file.read(name), tensors[name]) for name in tensors)
    assert file.sha256() == tensors_sha256(tensors.values())


def test_damage_is_found(tensors, tmp_path):
    path = write(tmp_path / "t.safetensors", tensors)
    data = path.read_bytes()
    for cut in (4, 30, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(UsageError, match=r"safetensors: (can't be read|is cut off)"):
            TensorFile(str(path))
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert TensorFile(str(path)).sha256() != tensors_sha256(tensors.values())


def test_another_shape_is_a_fault_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match=r"a is float64 \(2,\), not float32 \(2,\)"):
        write_tensors(str(tmp_path / "t"), {"a": (2,)}, [np.zeros(2)], {})
    assert not list(tmp_path.iterdir())
