"""Dtypes: their sizes, where they are native, and where their rates stand."""

import operator

import pytest
import torch
from hardware_profiles import profile

from zbench.config import DTYPES
from zbench.methods import dtypes


def test_every_dtype_of_the_schema_is_known_here() -> None:
    assert {dtypes.AUTO, *dtypes.BY_NAME} == set(DTYPES)


@pytest.mark.parametrize("dtype", dtypes.BY_NAME.values(), ids=lambda d: d.name)
def test_names_and_sizes_are_torchs(dtype: dtypes.Dtype) -> None:
    assert getattr(torch, dtype.name).itemsize == dtype.nbytes


def test_auto_is_the_checkpoints_precision_on_a_gpu() -> None:
    assert dtypes.dtype_on("cuda", "auto").name == "bfloat16" and dtypes.dtype_on("cpu", "auto").name == "float32"
    assert dtypes.dtype_on("cpu", "bfloat16").name == "bfloat16"


def test_what_is_native_has_one_name() -> None:
    assert dtypes.settled("bfloat16", "cuda") == dtypes.settled("auto", "cuda") == "auto"
    assert dtypes.settled("float32", "cuda") == "float32" and dtypes.settled("float32", "cpu") == "auto"
    assert dtypes.label("auto") is None and dtypes.label("float32") == "float32"


def test_rates_stand_where_it_says() -> None:
    assert operator.attrgetter(dtypes.BY_NAME["bfloat16"].peak_key)(profile("h100")) == profile("h100").peak_bf16_tflops
    float32 = dtypes.BY_NAME["float32"]
    assert operator.attrgetter(float32.peak_key)(profile("cpu")) == profile("cpu").efficiency.fp32_tflops
    assert float32.instead == "bfloat16" and dtypes.BY_NAME["bfloat16"].instead is None


def test_ceilings_have_names_of_their_own() -> None:
    assert dtypes.ceiling_name("bfloat16") == "bf16" and dtypes.ceiling_name("float32") == "float32"
    assert dtypes.ceiling_name("None") is None


def test_sglang_takes_none_over() -> None:
    assert dtypes.sglang_part("auto").notes == ()
    assert dtypes.sglang_part("float32").notes == ("compute.dtype=float32 is not carried over.",)
