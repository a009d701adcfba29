"""Arguments that a server settled otherwise than it was given them are told; what says nothing is left alone."""

from zbench.engines.sglang.settled import changed_arguments, logged_arguments

COMMAND = (
    *("sglang", "serve", "--model-path", "/m", "--port", "30000", "--ulysses-degree", "2", "--lora-scale", "1.0"),
    *("--pin-cpu-memory", "true", "--attention-backend", "fa", "--vae-tiling", "false"),
)


def test_the_last_line_of_settled_arguments_counts() -> None:
    log = (
        'x\n[a] server_args: {"tp_size": 1}\nserver_args: {"tp_size": 2}\nserver_args: {broken}\nServerArgs: {"a": 1}\n'
    )
    assert logged_arguments(log) == {"tp_size": 2}
    assert logged_arguments("server_args: ServerArgs(tp_size=1)") == {}


def test_a_degree_that_fell_back_is_told_with_both_values() -> None:
    settled = {"ulysses_degree": 1, "pin_cpu_memory": False, "attention_backend": "torch_sdpa", "port": 30001}
    assert changed_arguments(COMMAND, settled) == [
        "sglang serve was given --ulysses-degree 2 and went on with 1",
        "sglang serve was given --pin-cpu-memory true and went on with false",
        "sglang serve was given --attention-backend fa and went on with torch_sdpa",
    ]


def test_equal_values_and_those_that_say_nothing_are_no_change() -> None:
    settled = {
        **{"ulysses_degree": 2, "lora_scale": 1, "pin_cpu_memory": True, "attention_backend": "FA"},
        **{"vae_tiling": None, "model_path": "/resolved/m"},
    }
    assert changed_arguments(COMMAND, settled) == []
    assert changed_arguments((), settled) == []
