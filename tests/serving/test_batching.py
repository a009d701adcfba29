"""Requests that agree in everything but prompt and seed share a call; each gets its own image, or its own error."""

from typing import Any

import httpx
import pytest
from gated_server import GatedEngine, ServerInThread, bare_request, running

from zbench.errors import ZbenchError
from zbench.serving.orders import CallSharing

FOUR = CallSharing(max_size=4)


def answered(waiting: Any) -> httpx.Response:
    answer = waiting.get(timeout=60)
    assert isinstance(answer, httpx.Response), answer
    return answer


def behind_one(at: ServerInThread, *requests: dict[str, Any]) -> list[Any]:
    """Where the answers to these will be, which wait in this order behind one that is painted."""
    first = at.in_background(prompt="hold")
    assert at.began() == "hold"
    waiting = []
    for place, fields in enumerate(requests):
        waiting.append(at.in_background(**fields))
        at.wait_for_metric("zbench_waiting", place + 1)
    at.engine.gate.release()
    assert answered(first).status_code == 200
    return waiting


def test_requests_that_wait_share_a_call_and_each_gets_its_own_image() -> None:
    with running(batching=FOUR, queue_size=8) as at:
        seeds = range(5)
        told = [answered(one).json() for one in behind_one(at, *({"prompt": f"p{k}", "seed": k} for k in seeds))]
        assert at.engine.batches == [["p0", "p1", "p2", "p3"]], "the fifth is painted alone"
        assert [one["zbench"]["batch"] for one in told] == [4, 4, 4, 4, 1]
        assert [one["zbench"]["seed"] for one in told] == list(seeds)
        assert len({one["data"][0]["b64_json"] for one in told}) == 5
        assert told[0]["data"] == at.post(prompt="p0", seed=0).json()["data"], "the image of the request alone"
        assert [one["inference_time_s"] for one in told] == [0.5] * 5, "of the whole call"


def test_what_differs_in_more_than_prompt_and_seed_is_no_part_of_the_call() -> None:
    """Nor does it hold the others up: they go past it, and it is first of the next call."""
    with running(batching=FOUR, queue_size=8) as at:
        fields: list[dict[str, Any]] = [
            {"prompt": "a", "output_format": "jpeg"},
            {"prompt": "b", "num_inference_steps": 3},
            {"prompt": "c", "size": "32x32"},
            {"prompt": "d"},
            {"prompt": "e", "num_inference_steps": 3},
        ]
        assert all(answered(one).status_code == 200 for one in behind_one(at, *fields))
        assert at.engine.batches == [["a", "d"], ["b", "e"]]


@pytest.mark.parametrize("cache", [{"enable_cache_dit": True}, {"cache_dit_params": {"scm_preset": "fast"}}])
def test_where_a_threshold_decides_each_is_made_alone(cache: dict[str, Any]) -> None:
    """The difference it looks at would be that of the batch, so that other steps would be skipped."""
    with running(batching=FOUR) as at:
        alone = {**cache, "num_inference_steps": 9}
        told = [answered(one).json()["zbench"]["batch"] for one in behind_one(at, alone, alone)]
        assert told == [1, 1] and not at.engine.batches


def test_a_forced_mask_decides_nothing_by_what_is_computed() -> None:
    with running(batching=FOUR) as at:
        mask = {"scm_preset": "fast", "scm_policy": "static"}
        forced = {"cache_dit_params": mask, "num_inference_steps": 9}
        assert [answered(one).json()["zbench"]["batch"] for one in behind_one(at, forced, forced)] == [2, 2]


def test_images_of_one_request_share_calls_too() -> None:
    with running(batching=FOUR) as at:
        answer = at.post(prompt="p", n=10, seed=5).json()
        assert [len(prompts) for prompts in at.engine.batches] == [4, 4, 2]
        assert [seed for _, seed, *_ in at.engine.painted] == list(range(5, 15))
        assert answer["zbench"]["batch"] == 4 and answer["inference_time_s"] == 1.5
        assert len({one["b64_json"] for one in answer["data"]}) == 10


def test_of_a_batch_that_fails_each_is_made_alone_and_gets_its_own_error() -> None:
    with running(batching=FOUR) as at:
        asked: list[dict[str, Any]] = [{"prompt": "a"}, {"prompt": "raise"}, {"prompt": "black"}, {"prompt": "d"}]
        answers = [answered(one) for one in behind_one(at, *asked)]
        assert [one.status_code for one in answers] == [200, 500, 500, 200]
        assert answers[1].json()["error"]["code"] == "error"
        assert answers[2].json()["error"]["code"] == "invalid_images"
        assert at.engine.batches == [["a", "raise", "black", "d"]]


def test_a_spoilt_image_of_a_batch_costs_the_others_nothing() -> None:
    with running(batching=FOUR) as at:
        answers = [answered(one) for one in behind_one(at, {"prompt": "a"}, {"prompt": "black"})]
        assert [one.status_code for one in answers] == [200, 500]
        assert [prompt for prompt, *_ in at.engine.painted] == ["hold", "a", "black"], "nothing is made twice"


def test_a_member_that_leaves_amid_a_call_costs_the_others_nothing() -> None:
    with running(batching=FOUR) as at:
        painting = at.in_background(prompt="hold 0")
        at.began()
        gone = bare_request(at, prompt="hold gone", n=2)
        at.wait_for_metric("zbench_waiting", 1)
        stays = at.in_background(prompt="stays", seed=9)
        at.wait_for_metric("zbench_waiting", 2)
        at.engine.gate.release()
        assert at.began() == "hold gone+hold gone+stays"
        gone.close()
        at.wait_for_metric('zbench_clients_left_total{where="pipeline"}', 1)
        at.engine.gate.release()
        assert answered(painting).status_code == answered(stays).status_code == 200
        assert answered(stays_again := at.in_background(prompt="stays", seed=9)).status_code == 200, stays_again


def test_a_call_that_is_not_full_waits_for_more() -> None:
    with running(batching=CallSharing(2, 60.0)) as at:
        first = at.in_background(prompt="a")
        at.wait_for_metric("zbench_serving", 1)
        second = at.in_background(prompt="b")
        assert [answered(one).json()["zbench"]["batch"] for one in (first, second)] == [2, 2]
        alone = at.post(prompt="c", batching_delay_ms=0)
        assert alone.json()["zbench"]["batch"] == 1


def test_a_client_that_leaves_ends_the_wait_for_its_fellows() -> None:
    with running(batching=CallSharing(2, 60.0)) as at:
        gone = bare_request(at, prompt="gone")
        at.wait_for_metric("zbench_serving", 1)
        gone.close()
        at.wait_for_metric("zbench_serving", 0)
        assert at.post(prompt="after", batching_delay_ms=0).status_code == 200
        assert [prompt for prompt, *_ in at.engine.painted] == ["after"]


def test_a_stop_does_not_wait_for_fellows() -> None:
    with running(batching=CallSharing(2, 600.0)) as at:
        waits = at.in_background(prompt="a")
        at.wait_for_metric("zbench_serving", 1)
        at.server.stop()
        assert answered(waits).status_code == 200
        at.thread.join(60)


def test_a_request_may_ask_for_less_so_that_one_server_serves_a_whole_sweep() -> None:
    with running(batching=FOUR, queue_size=8) as at:
        two = {"batching_max_size": 2}
        told = [answered(one).json()["zbench"]["batch"] for one in behind_one(at, two, two, two, {"prompt": "own"})]
        assert told == [2, 2, 1, 1]
        refused = at.post(batching_max_size=5)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "batching_max_size"
        assert "started with --batching-max-size 4" in refused.json()["error"]["message"]
        assert at.post(batching_delay_ms=1).json()["error"]["param"] == "batching_delay_ms"
        assert at.post(batching_max_size=0).json()["error"]["code"] == "invalid_value"


def test_an_engine_that_makes_one_at_a_time_says_why_before_it_loads() -> None:
    engine = GatedEngine(batching_problem="compute.compile=true: is made for one image a call")
    says = r"--batching-max-size 4: compute\.compile=true: .*; leave it out"
    with pytest.raises(ZbenchError, match=says), running(engine, batching=FOUR):
        pytest.fail("it started")


def test_a_batch_that_does_not_fit_ends_the_start_with_the_flag_to_lower() -> None:
    engine = GatedEngine()
    engine.sick_of_batches = MemoryError("no more")
    with running(engine, ready=False, batching=FOUR) as at:
        at.thread.join(60)
        assert isinstance(at.error, ZbenchError) and at.error.exit_code == 4
        assert "--batching-max-size 4: out_of_memory" in str(at.error)


def test_metrics_count_how_many_shared() -> None:
    with running(batching=FOUR) as at:
        for one in behind_one(at, {}, {}, {}):
            answered(one)
        assert at.metric("zbench_batch_size_sum") == 1 + 3 * 3
