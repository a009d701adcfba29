"""The worker: one process that holds one resident pipeline, takes trials and gives measurements; it schedules nothing.

`python -m zbench.worker READ_FD WRITE_FD` speaks JSON lines over two inherited pipes. It says `hello` first, with the
protocol's version. It ends with its parent, however that dies, because the pipe it reads from ends then.

| command | fields | answered by |
|---|---|---|
| `run` | `trial`, `measure`, `artifacts` (folder), `reference` (such, or null), `is_reference` | events below |
| `prepare` | `side` (a name), `trial` | `prepared` once it is loaded, configured and has made its first image |
| `generate` | `side`, `index` (of the workload's pairs, in turn) | `generated`: one round of what was prepared so |
| `stop` | | the round in progress is finished, then `stopped`; nothing if no trial is running |
| `quit` | | the process ends with code 0 |

Images are compared with those in `reference`. Null there says only that there are none: whether others are compared
with this trial's, which are then made twice, is what `is_reference` says.

| event | fields |
|---|---|
| `hello` | `protocol`, `pid` |
| `loading` | where the pipeline changes, and again with `stage`, `done_bytes` and `total_bytes` as they grow |
| `loaded` | `load_s`, checksums left out |
| `round` | `phase` (warmup or timed), `index`, `latency_s`, `min_rounds`, `max_rounds` (of the phase) |
| `done` | `measurement` |
| `prepared` | `first_latency_s`, `effective` |
| `generated` | `round` |
| `failed` | `code` (out_of_memory, weights, config, error), `message` (one line), `stage`, `memory` (bytes, or null) |
| `stopped` | |
"""

PROTOCOL_VERSION = 5
