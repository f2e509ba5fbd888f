import pytest

from stanch.weights import native_float


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags: fpu avx512_bf16", "bfloat16"), ("flags: amx_bf16", "bfloat16"), ("flags: avx2", "float32")],
)
def test_bfloat16_only_where_it_is_native(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(flags)
    assert native_float(tmp_path / "cpuinfo") == expected
    assert native_float(tmp_path / "none") == "float32"
