"""Layers that come while others compute: none is read before it has arrived, nor overwritten before it has computed.

A fake GPU keeps what its two streams are given in queues and runs them as slowly and as fast as events allow.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from zbench.config import OffloadConfig
from zbench.engines.reference.layers_ahead import LayersAhead
from zbench.engines.reference.offloading import Offloading
from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline

LAYERS = 4


class FakeEvent:
    happened = False


class FakeStream:
    def __init__(self) -> None:
        self.queue: deque[Callable[[], bool]] = deque()

    def does(self, work: Callable[[], object]) -> None:
        self.queue.append(lambda: (work(), True)[1])

    def record_event(self) -> FakeEvent:
        event = FakeEvent()
        self.does(lambda: setattr(event, "happened", True))
        return event

    def wait_event(self, event: FakeEvent) -> None:
        self.queue.append(lambda: event.happened)

    def wait_stream(self, other: "FakeStream") -> None:
        self.wait_event(other.record_event())

    def step(self) -> bool:
        """Do one thing, if it need not wait; whether it did."""
        if not self.queue or not self.queue[0]():
            return False
        self.queue.popleft()
        return True


class FakeGPU:
    """What `LayersAhead` needs of torch.cuda."""

    def __init__(self) -> None:
        self.computing = self.current = FakeStream()
        self.side = FakeStream()

    def Stream(self, device: object) -> FakeStream:
        return self.side

    def current_stream(self, device: object) -> FakeStream:
        return self.current

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self.current, before = stream, self.current
        yield
        self.current = before

    def finish(self, first: FakeStream) -> None:
        """Run everything, `first` as early as it may."""
        streams = [first, self.side if first is self.computing else self.computing]
        while any(stream.step() for stream in streams):
            pass
        assert not any(stream.queue for stream in streams), "they wait for one another"


class FakeLayer:
    nbytes = 3

    def __init__(self, number: int, gpu: FakeGPU, log: list[str]) -> None:
        self.number, self.gpu, self.log, self.place = number, gpu, log, torch.empty(0)

    def fetch(self, place: torch.Tensor) -> None:
        self.place = place
        self.gpu.current.does(lambda: (place.fill_(self.number), self.log.append(f"copy {self.number}")))

    def drop(self) -> None:
        self.place = torch.empty(0)

    def compute(self) -> None:
        place = self.place
        self.gpu.current.does(lambda: self.log.append(f"compute {int(place[0])}"))


class FakeModel:
    def __init__(self) -> None:
        self.gpu, self.log = FakeGPU(), list[str]()
        self.layers: list[Any] = [FakeLayer(number, self.gpu, self.log) for number in range(LAYERS)]
        self.places: set[int] = set()
        self.ahead = LayersAhead(FakeLayer.nbytes, torch.device("cpu"), self.gpu)

    def call(self) -> None:
        self.places.clear()
        self.ahead.begin()
        for layer in self.layers:
            self.ahead.need(layer)
            self.places.add(layer.place.data_ptr())
            layer.compute()
            self.ahead.done(layer)
        self.ahead.end()

    @property
    def computed(self) -> list[str]:
        return [line for line in self.log if "compute" in line]


COMPUTED = [f"compute {number}" for number in range(LAYERS)]


@pytest.mark.parametrize("fast", ["computing", "side"])
def test_every_layer_computes_with_its_own_weights_in_two_places(fast: str) -> None:
    model = FakeModel()
    for _ in range(3):  # the host is three calls ahead of the device
        model.call()
        assert len(model.places) == 2
    model.gpu.finish(getattr(model.gpu, fast))
    assert model.computed == COMPUTED * 3


def test_a_layer_comes_while_the_one_before_it_computes_and_no_sooner() -> None:
    model = FakeModel()
    model.call()
    model.gpu.finish(model.gpu.side)
    assert model.log == ["copy 0", "copy 1", "compute 0", "copy 2", "compute 1", "copy 3", "compute 2", "compute 3"]


def test_what_a_failed_call_left_does_not_spoil_the_next() -> None:
    model = FakeModel()
    model.ahead.begin()
    model.ahead.need(model.layers[1])  # it fails here
    model.ahead.end()
    model.call()
    model.gpu.finish(model.gpu.computing)
    assert model.computed == COMPUTED


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["text_encoder", "all"])
def test_on_a_gpu_prompts_are_read_as_without_offload_to_the_bit(mode: str) -> None:
    def read(pipe: Any) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = pipe.encode_prompt("a large red circle", "cuda", False, max_sequence_length=128)[0][0]
        return found

    pipe = load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cuda")
    plain = read(pipe)
    offloading = Offloading(pipe, OffloadConfig(mode=mode), "cuda")
    moved = []
    for _ in range(3):
        offloading.reset()
        assert torch.equal(read(pipe), plain)
        moved.append((offloading.moved_bytes or {})["text_encoder"])
    assert len(set(moved)) == 1
