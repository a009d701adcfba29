"""The worker: one process that holds one resident pipeline, takes trials and gives measurements; it schedules nothing.

`python -m zbench.worker READ_FD WRITE_FD` speaks JSON lines over two inherited pipes. It says `hello` first, with the
protocol's version. It ends with its parent, however that dies (`lifetime`).

| command | fields | answered by |
|---|---|---|
| `run` | `measure`, `settings`: trials of one residency, which take turns in one window | events below |
| `import` | `trial` | `imported` once what it is launched with is imported; several workers can do that at once |
| `prepare` | `side` (a name), `role`, `trial`, `began_s` | `prepared` once it is loaded and has made its first image |
| `generate` | `side`, `index` (of the workload's pairs, in turn) | `generated`: one request of what was prepared so |
| `stop` | | the round in progress is finished, then `stopped`; nothing if no trial is running |
| `quit` | | the process ends with code 0 |

A setting is `trial`, `role` (baseline or trial), `artifacts` (folder), `reference` (such, or null), `is_reference`,
`is_beside` (of one of several: the others are compared with its requests and keep them, with the role baseline),
`companion` (of that one, if it is the last: it takes turns for the others' sake and is told nothing of). If it is the
first it is measured as they are, and its `artifacts`, which may be their `reference`, are saved before theirs are
compared.
`began_s` is when the comparison began, on the machine's monotonic clock: times of requests are seconds after it.
Images are compared with those in `reference`. Null there says only that there are none: whether others are compared
with this trial's, which are then made twice, is what `is_reference` says.

| event | fields |
|---|---|
| `hello` | `protocol`, `pid`, `environment` (where this worker is, with its devices), `imports` (it knows `import`) |
| `loading` | where the pipeline changes, and again with `stage`, `done_bytes` and `total_bytes` as they grow |
| `loaded` | `load_s`, checksums left out |
| `round` | `trial_id`, `phase` (warmup or timed), `index`, `latency_s`, `min_rounds`, `max_rounds` (of the phase) |
| `turn` | `trial_id`: whose turn it is from now on, where trials take turns |
| `measured` | `measurements` as below, before ranks are profiled: what then fails takes nothing of them along |
| `done` | `measurements`, in the order of the settings, a companion left out |
| `prepared` | `first_latency_s`, `effective` |
| `generated` | `request` |
| `failed` | `trial_id` (whose turn), `code`, `message`, `stage`, `memory`; of a rank its `log_tail`, if it has one |
| `stopped` | |

A `code` is out_of_memory, machine (which failed, and not the trial), weights, config, error, or invalid_images: of
`prepare` alone, for a measurement keeps the requests that made such images. Of several ranks it may also be rank_lost,
rank_hung or ranks_disagree.
"""

PROTOCOL_VERSION = 7
