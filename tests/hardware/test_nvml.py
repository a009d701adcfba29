"""The wrapper around NVIDIA's library answers everything, with None for what the driver does not say."""

import sys
from types import SimpleNamespace

import pytest
from fake_nvml import GIB, FakeGpu, FakeNvml

from zbench.hardware.nvml import FIELD_MEMBERS, Device, Nvml, PcieBytes, visible


def test_without_the_library_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # what import sees of a package that is not installed
    assert Nvml().devices() == []


def test_without_a_driver_there_are_no_devices() -> None:
    """nvmlInit raises where no driver is loaded."""
    assert Nvml(FakeNvml(FakeGpu(), unsupported=("nvmlInit",))).devices() == []


def test_a_device_is_described() -> None:
    assert Nvml(FakeNvml(FakeGpu())).devices() == [
        Device(0, "NVIDIA H100 80GB HBM3", "GPU-aaaa", 80 * GIB, "580.95", 700.0)
    ]


def test_names_of_older_libraries_come_as_bytes() -> None:
    library = FakeNvml(FakeGpu())
    library.calls["nvmlDeviceGetName"] = lambda gpu: b"NVIDIA H200"
    assert Nvml(library).devices()[0].name == "NVIDIA H200"


def test_every_question_about_a_device_that_is_not_there_is_answered_none() -> None:
    nvml = Nvml(FakeNvml(FakeGpu()))
    for index in (1, -1):
        assert nvml.used_bytes(index) is None
        assert nvml.energy_j(index) is None
        assert nvml.processes(index) == {}
        assert nvml.process_memory(index, [1], 0) is None


@pytest.mark.parametrize("how", ["without", "unsupported"])
def test_calls_that_are_missing_or_not_supported_are_none(how: str) -> None:
    """Old libraries lack functions, GeForce boards and MIG slices answer NotSupported."""
    calls = (
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetPcieThroughput",
    )
    nvml = Nvml(FakeNvml(FakeGpu(), **{how: calls}))
    assert nvml.energy_j(0) is None
    assert nvml.power_w(0) is None
    assert nvml.sm_clock_mhz(0) is None
    assert nvml.temperature_c(0) is None
    assert nvml.throttle_reasons(0) is None
    assert nvml.pcie_counters(0) is None
    assert nvml.pcie_bytes_per_s(0) is None
    assert nvml.used_bytes(0) is None
    assert nvml.devices()[0].memory_bytes is None


def test_units_are_joules_and_watts() -> None:
    """NVML counts in millijoules and milliwatts."""
    nvml = Nvml(FakeNvml(FakeGpu(energy_mj=2_500, power_mw=350_000)))
    assert nvml.energy_j(0) == pytest.approx(2.5)
    assert nvml.power_w(0) == pytest.approx(350)


def test_a_process_in_both_lists_is_counted_once() -> None:
    """A process with a CUDA and a graphics context is in both lists with the same figure, its whole memory."""
    nvml = Nvml(FakeNvml(FakeGpu(compute={7: 3 * GIB}, graphics={7: 3 * GIB, 8: GIB})))
    assert nvml.processes(0) == {7: 3 * GIB, 8: GIB}


def test_a_process_without_a_figure_in_one_list_keeps_that_of_the_other() -> None:
    nvml = Nvml(FakeNvml(FakeGpu(compute={7: None}, graphics={7: 0})))
    assert nvml.processes(0) == {7: 0}


def test_memory_of_a_visible_process_is_its_own() -> None:
    memory = Nvml(FakeNvml(FakeGpu(used=9 * GIB, compute={7: 3 * GIB}))).process_memory(0, [7], used_before_bytes=GIB)
    assert memory is not None
    assert (memory.bytes, memory.method) == (3 * GIB, "process")


@pytest.mark.parametrize("compute", [{}, {7: None}, {4242: 8 * GIB}])
def test_memory_of_a_hidden_process_is_the_devices_difference_and_marked(compute: dict[int, int | None]) -> None:
    """Containers see no processes, processes without figures, or the host's PIDs."""
    nvml = Nvml(FakeNvml(FakeGpu(used=9 * GIB, compute=compute)))
    memory = nvml.process_memory(0, [7], used_before_bytes=GIB)
    assert memory is not None
    assert (memory.bytes, memory.method) == (8 * GIB, "device_difference")
    assert nvml.process_memory(0, [7]) is None  # nothing to take the difference from


def test_idle_is_no_throttling_but_a_power_cap_is() -> None:
    gpu = FakeGpu(throttle=FakeNvml.nvmlClocksEventReasonGpuIdle)
    nvml = Nvml(FakeNvml(gpu))
    assert nvml.throttle_reasons(0) == []
    gpu.throttle |= FakeNvml.nvmlClocksEventReasonSwPowerCap
    assert nvml.throttle_reasons(0) == ["sw_power_cap"]


def test_older_libraries_call_them_throttle_reasons() -> None:
    nvml = Nvml(FakeNvml(FakeGpu(throttle=0x4), without=("nvmlDeviceGetCurrentClocksEventReasons",)))
    assert nvml.throttle_reasons(0) == ["sw_power_cap"]


def test_a_closed_session_answers_none() -> None:
    nvml = Nvml(FakeNvml(FakeGpu()))
    nvml.close()
    assert nvml.devices() == []
    assert nvml.used_bytes(0) is None


@pytest.mark.parametrize(
    ("listed", "indices"),
    [
        (None, [0, 1]),
        ("1,0", [1, 0]),
        ("GPU-b", [1]),
        ("", []),
        ("-1", []),
        ("1,9,0", [1]),  # CUDA ends the list at the first entry that names no device
    ],
)
def test_cuda_visible_devices_chooses_and_orders(listed: str | None, indices: list[int]) -> None:
    devices = Nvml(FakeNvml(FakeGpu(), FakeGpu(uuid="GPU-bbbb"))).devices()
    variables = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert [device.index for device in visible(devices, variables)] == indices


def test_the_real_library_is_harmless_on_this_machine() -> None:
    """With or without a GPU: nvidia-ml-py is installed wherever zbench is."""
    nvml = Nvml()
    assert all(device.name for device in nvml.devices())
    nvml.close()


def test_memory_in_use_is_nvidia_smi_s_without_what_the_driver_reserves() -> None:
    nvml = Nvml(FakeNvml(FakeGpu(used=9 * GIB, reserved=GIB)))
    assert nvml.used_bytes(0) == 9 * GIB
    old = FakeNvml(FakeGpu(used=9 * GIB, reserved=GIB))
    newest = old.calls["nvmlDeviceGetMemoryInfo"]
    old.calls["nvmlDeviceGetMemoryInfo"] = lambda gpu: newest(gpu)  # libraries that know one version only
    assert Nvml(old).used_bytes(0) == 10 * GIB


def test_pcie_counters_are_bytes_as_the_device_sees_them() -> None:
    assert Nvml(FakeNvml(FakeGpu(pcie_counters=(7_000, 3_000)))).pcie_counters(0) == PcieBytes(7_000, 3_000)


def test_a_counter_is_read_from_the_member_that_its_type_names() -> None:
    library = FakeNvml(FakeGpu())
    values = [SimpleNamespace(uiVal=n, ullVal=n + 2**40, ulVal=-1, dVal=0.0) for n in (5, 6)]
    answers = [
        SimpleNamespace(nvmlReturn=0, valueType=FakeNvml.NVML_VALUE_TYPE_UNSIGNED_INT, value=value) for value in values
    ]
    library.calls["nvmlDeviceGetFieldValues"] = lambda gpu, ids: answers
    assert Nvml(library).pcie_counters(0) == PcieBytes(5, 6)
    answers[0].valueType = FakeNvml.NVML_VALUE_TYPE_DOUBLE  # no counter
    assert Nvml(library).pcie_counters(0) is None


def test_a_field_that_the_device_does_not_have_is_none_though_the_call_succeeds() -> None:
    library = FakeNvml(FakeGpu())
    fields = library.calls["nvmlDeviceGetFieldValues"]

    def without_transmitted(gpu: FakeGpu, ids: list[int]) -> list[SimpleNamespace]:
        received, transmitted = fields(gpu, ids)
        transmitted.nvmlReturn = FakeNvml.NVML_ERROR_NOT_SUPPORTED
        return [received, transmitted]

    library.calls["nvmlDeviceGetFieldValues"] = without_transmitted
    assert Nvml(library).pcie_counters(0) is None


def test_pcie_throughput_is_bytes_a_second() -> None:
    """NVML says KB/s."""
    assert Nvml(FakeNvml(FakeGpu(pcie_kb_per_s=(20, 5)))).pcie_bytes_per_s(0) == PcieBytes(20_000, 5_000)


def test_the_fields_asked_for_are_those_of_the_installed_library() -> None:
    pynvml = pytest.importorskip("pynvml")
    assert (pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES, pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES) == (197, 198)
    assert all(hasattr(pynvml, f"NVML_VALUE_TYPE_{kind}") for kind in FIELD_MEMBERS)
    assert all(hasattr(pynvml.c_nvmlValue_t(), member) for member in FIELD_MEMBERS.values())


def test_a_process_listed_twice_in_one_list_is_counted_once() -> None:
    """On a device with MIG a process can be listed for more than one instance."""
    library = FakeNvml(FakeGpu())
    listed = [SimpleNamespace(pid=7, usedGpuMemory=used) for used in (None, 3 * GIB, GIB)]
    library.calls["nvmlDeviceGetComputeRunningProcesses"] = lambda gpu: listed
    assert Nvml(library).processes(0) == {7: 3 * GIB}
    listed[:] = [SimpleNamespace(pid=7, usedGpuMemory=None)]
    assert Nvml(library).processes(0) == {7: None}


def test_memory_of_several_processes_is_summed_over_those_that_hold_some() -> None:
    nvml = Nvml(FakeNvml(FakeGpu(used=9 * GIB, compute={7: 3 * GIB, 8: GIB, 9: 2 * GIB})))
    memory = nvml.process_memory(0, [7, 8, 4242])
    assert memory is not None and (memory.bytes, memory.method) == (4 * GIB, "process")


def test_a_sum_with_a_part_that_the_driver_does_not_say_is_the_devices_difference() -> None:
    nvml = Nvml(FakeNvml(FakeGpu(used=9 * GIB, compute={7: 3 * GIB, 8: None})))
    memory = nvml.process_memory(0, [7, 8], used_before_bytes=GIB)
    assert memory is not None and (memory.bytes, memory.method) == (8 * GIB, "device_difference")
