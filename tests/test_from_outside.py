"""Cache methods, executors, searches and exports from outside, each one file and one line, do their work.

Each is permitted by an entry point, and by --allow-code. Engines are in test_plugins, the examples of docs/plugins.md
in test_plugins_page.
"""

import json
from pathlib import Path

import pytest
from outside_code import SMALL, Outside, records, zbench

from zbench.plugins import ENTRY_POINTS, Kind

SYNTHETIC = (*SMALL, "engine.target=synthetic", "engine.loads_weights=false", "measure.max_warmup_rounds=0")
ONE_SETTING = ("cache=dbcache", "cache.max_warmup_steps=4", "cache.residual_diff_threshold=1.0")
WAYS = pytest.mark.parametrize("by", ["entry point", "--allow-code"])

MOON = """
import json, pathlib
from factories import measurement
from zbench.environment import capture
from zbench.executors import Completed, Done

class Moon:
    capacity = 2
    def __init__(self, config, log_folder, *, allow_code):
        self.log = pathlib.Path(config.options["log"])
        self.say(made=log_folder.name, allow_code=allow_code)
        self.environments = [capture().to_dict() | {"cpu": "Moon CPU"}]
        self.held = []
    def say(self, **what):
        with self.log.open("a") as log:
            print(json.dumps(what), file=log)
    def submit(self, task):
        self.held.append(task)
        self.say(submit=task.settings[0].trial.trial_id, held=len(self.held))
    def next_done(self, on_event, should_stop):
        task = self.held.pop()  # the newest first
        on_event(task, {"event": "loading"})
        self.say(done=task.settings[0].trial.trial_id)
        measured = Completed(measurement(task.settings[0].trial, latency_s=7.0))
        return Done(task, (measured,), self.environments[0] | {"where": "far side"})
    def abort(self): ...
    def close(self):
        self.say(closed=True)
"""
BISECT = """
import json, pathlib
from dataclasses import replace

class Bisect:
    '''The largest threshold that skips no more steps than `most`.'''
    def __init__(self, space, config):
        self.space, self.most, self.log = space, config.options["most"], pathlib.Path(config.options["log"])
        self.typed = iter([placed.trial for placed in space.placed])
        self.start = space.placed[-1].trial
        self.low, self.high, self.left, self.waits = 0.0, 1.0, config.n_trials, None
    def ask(self):
        if (typed := next(self.typed, None)) is not None:
            return typed
        if self.waits is not None or self.left == 0:
            return None
        self.left -= 1
        cache = replace(self.start.cache, residual_diff_threshold=(self.low + self.high) / 2)
        self.waits = replace(self.start, cache=cache)
        return self.waits
    def tell(self, record, figures):
        with self.log.open("a") as log:
            print(json.dumps([record.trial_id, figures.cached_steps, figures.latency_median_s]), file=log)
        if self.waits is None or record.trial_id != self.waits.trial_id:
            return
        self.waits, threshold = None, record.trial.cache.residual_diff_threshold
        if figures.cached_steps <= self.most:
            self.low = threshold
        else:
            self.high = threshold
"""
REPEAT = """
class Repeat:
    def problem(self, options, n_blocks, steps):
        return None if 0 < options["at"] < steps else f"at must be from 1 to {steps - 1}"
    def enable(self, pipe, options, steps):
        self.forward, self.at, self.calls = pipe.transformer.forward, options["at"], 0
        def forward(*arguments, **named):
            step, self.calls = self.calls % steps, self.calls + 1
            if step != self.at:
                self.last = self.forward(*arguments, **named)
            return self.last
        pipe.transformer.forward = forward
    def disable(self, pipe):
        pipe.transformer.forward = self.forward
    def statistics(self, pipe):
        return [self.at], {str(self.at): 0.5}
    def effective(self, pipe):
        return {"at": self.at}

class Half:
    def enable(self, pipe, options, steps): ...
"""
COUNT = """
class Count:
    def render(self, view):
        return "".join(f"{row.label} {row.state}\\n" for row in view.trials)
"""


def permitted(outside: Outside, by: str, kind: Kind, target: str) -> tuple[str, list[str]]:
    """How a class is named, and the flags that it needs."""
    if by == "--allow-code":
        return target, [by]
    outside.package("mine", ENTRY_POINTS[kind], **{f"my_{kind}": target})
    return f"my_{kind}", []


def said(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@WAYS
def test_an_executor_runs_trials_where_it_likes(by: str, outside: Outside, tmp_path: Path) -> None:
    outside.module("moon", MOON)
    name, flags = permitted(outside, by, "executor", "moon:Moon")
    log = tmp_path / "moon.log"
    command = ("sweep", *SYNTHETIC, "cache=dbcache", f"executor.target={name}", f"executor.options.log={log}", *flags)
    done = zbench(*command)
    assert done.returncode == 0, done.stderr
    made, *acts, closed = said(log)
    assert made == {"made": "logs", "allow_code": by == "--allow-code"} and closed == {"closed": True}
    found = records()
    assert len(found) == 7 and {r.state for r in found} == {"COMPLETE"}
    reference = found[0].reference_id
    assert acts[:2] == [{"submit": reference, "held": 1}, {"done": reference}], "others wait for their reference"
    assert [act["held"] for act in acts if "held" in act] == [1, 1, 2, 2, 2, 2, 2]
    assert all(r.environment["where"] == "far side" and r.environment["cpu"] == "Moon CPU" for r in found)
    assert all(r.measurement is not None and round(r.measurement.requests[0].latency_s) == 7 for r in found)
    again = zbench(*command)
    assert again.stderr.count("from the journal") == 7 and len(records()) == 7, "it is on the moon again"


@WAYS
def test_a_search_makes_trials_of_its_own_by_what_it_is_told(by: str, outside: Outside, tmp_path: Path) -> None:
    outside.module("halving", BISECT)
    name, flags = permitted(outside, by, "search", "halving:Bisect")
    log = tmp_path / "told.log"
    options = ("search.options.most=2", f"search.options.log={log}", f"search.target={name}")
    command = ("sweep", *SYNTHETIC, *ONE_SETTING, *options, *flags)
    planned = zbench("plan", *command[1:], "search.n_trials=6")
    assert f"which a plan does not run: engine.target=synthetic, search.target={name}\n" in planned.stderr
    assert planned.stdout.count("F1B0_W4") == 1 and not log.exists()
    assert ": 2 trials to choose from, as the search decides, 0 pruned; expected time unknown" in planned.stdout
    first = zbench(*command, "search.n_trials=6")
    assert first.returncode == 0, first.stderr
    assert "\n[8] " in first.stderr and "ETA" not in first.stderr, "it does not say how many it will make"
    found = records()
    thresholds = [r.trial.cache.residual_diff_threshold for r in found[1:]]
    assert thresholds == [1.0, 0.5, 0.25, 0.125, 0.0625, 0.09375, 0.078125], "0.1 s of a step are 5 steps' difference"
    assert {r.state for r in found} == {"COMPLETE"} and {r.reference_id for r in found} == {found[0].trial_id}
    told = said(log)
    assert [trial_id for trial_id, _, _ in told] == [r.trial_id for r in found]
    assert [cached for _, cached, _ in told] == [0, 4, 4, 4, 4, 0, 3, 2]
    assert first.stdout.count("F1B0_W4") >= 7, "the table has them too"
    second = zbench(*command, "search.n_trials=7")
    assert second.returncode == 0 and second.stderr.count("from the journal") == 8, second.stderr
    assert records()[-1].trial.cache.residual_diff_threshold == pytest.approx(0.0859375) and len(records()) == 9
    assert said(log)[8:16] == told, "what the journal has is told as well"


def test_a_cache_method_skips_steps_of_the_reference_engine(outside: Outside, tmp_path: Path) -> None:
    """By an entry point and a choice of one's own with a grid; test_plugins_page has it with --allow-code."""
    outside.module("repeats", REPEAT)
    name, _ = permitted(outside, "entry point", "cache", "repeats:Repeat")
    (tmp_path / "conf" / "cache").mkdir(parents=True)
    (tmp_path / "conf" / "cache" / "mine.yaml").write_text(
        "defaults:\n  - /schema/cache@_here_: custom\n  - _self_\n"
        f"method: repeat\ntarget: {name}\noptions: {{at: 1}}\ngrid: {{options.at: '1,2,4'}}\n"
    )
    small = (*SMALL, "pipeline.height=64", "pipeline.width=64", "pipeline.steps=4")
    done = zbench("sweep", *small, "--config-dir", str(tmp_path / "conf"), "cache=none,mine")
    found = {r.label: r for r in records()}
    for at in (1, 2):
        record = found[f"repeat(at={at})"]
        assert record.state == "COMPLETE" and record.measurement is not None, done.stderr
        assert [request.cached_steps for request in record.measurement.requests] == [[at]] * 2
        assert record.measurement.effective.cache == {"method": "repeat", "at": at}
        assert record.measurement.quality and not record.measurement.quality[0].identical
        assert record.config["cache"]["target"] == name and record.config["cache"]["options"] == {"at": at}
    reason = found["repeat(at=4)"].reason
    assert done.returncode == 4 and reason is not None and reason.message.endswith("at must be from 1 to 3")


def test_a_cache_method_that_lacks_methods_fails_its_trial_in_one_clear_line(outside: Outside) -> None:
    outside.module("repeats", REPEAT)
    small = (*SMALL, "pipeline.height=64", "pipeline.width=64", "pipeline.steps=4")
    done = zbench("run", *small, "cache=custom", "cache.method=half", "cache.target=repeats:Half", "--allow-code")
    assert done.returncode == 4 and "fault of zbench" not in done.stderr, done.stderr
    half, reference = records()  # it failed in its turn, and the reference was measured alone then
    assert reference.state == "COMPLETE" and half.state == "FAILED" and half.reason is not None
    assert half.reason.message == (
        "cache.target=repeats:Half: lacks problem, disable, statistics, effective; it must be a class with problem, "
        "enable, disable, statistics, effective"
    )


@WAYS
def test_an_export_renders_what_was_measured(by: str, outside: Outside, tmp_path: Path) -> None:
    outside.module("counts", COUNT)
    name, flags = permitted(outside, by, "export", "counts:Count")
    assert zbench("run", *SYNTHETIC, "sweep.name=r").returncode == 0
    done = zbench("export", "r", "--format", name, *flags)
    assert (done.returncode, done.stdout) == (0, "none COMPLETE\n"), done.stderr
    done = zbench("export", "r", "--format", name, "--out", "r.txt", *flags)
    assert done.returncode == 0 and (tmp_path / "r.txt").read_text() == "none COMPLETE\n"
