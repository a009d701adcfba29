"""`zbench serve`: one trial's pipeline behind OpenAI's images endpoint; it measures nothing and keeps no record.

`protocol` says what a request may hold, `orders` what it means to the loaded pipeline, `line` is the bounded queue,
`studio` the one thread that holds the engine, `app` the endpoints, `wire` what goes over a connection, `server` the
process: its port, its signals and its end. No module here imports torch; an engine does, in `studio`'s thread.
"""
