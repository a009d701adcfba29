"""What `/metrics` says, in Prometheus' text form. No label holds anything that a client wrote."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)

IMAGES = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """Of one server."""

    def __init__(self, waiting: Callable[[], int], serving: Callable[[], int], ready: Callable[[], int]) -> None:
        """What is asked when somebody reads: requests that wait, that are painted, and whether it is ready (0 or 1)."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("zbench_requests", "Requests for images by HTTP status", ["status"], registry=registry)
        self.left = Counter("zbench_clients_left", "Requests whose client left first", ["where"], registry=registry)
        self.images = Counter("zbench_images", "Images sent", registry=registry)
        self.request_s = self._histogram("request", "Seconds from a request to its answer")
        self.queue_s = self._histogram("queue", "Seconds in the queue")
        self.inference_s = self._histogram("inference", "Seconds of the pipeline for a request")
        self.batch = Histogram(
            "zbench_batch_size",
            "Images of the call that made a request's, other requests' among them",
            buckets=IMAGES,
            registry=registry,
        )
        for name, says, ask in (
            ("waiting", "Requests in the queue", waiting),
            ("serving", "Requests that are painted now", serving),
            ("ready", "1 where it is loaded and warmed up", ready),
        ):
            Gauge(f"zbench_{name}", says, registry=registry).set_function(ask)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, says: str) -> Histogram:
        return Histogram(f"zbench_{name}_seconds", says, buckets=SECONDS, registry=self._registry)
