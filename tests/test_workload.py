from zbench.config import Prompt, WorkloadConfig
from zbench.workload import pairs, whole_cycles


def test_every_prompt_meets_every_seed_in_the_order_given() -> None:
    workload = WorkloadConfig(name="w", prompts=[Prompt("a", "x"), Prompt("b", "y")], seeds=[3, 1])
    assert [(p.prompt_id, p.prompt_text, p.seed) for p in pairs(workload)] == [
        ("a", "x", 3),
        ("a", "x", 1),
        ("b", "y", 3),
        ("b", "y", 1),
    ]


def test_rounds_are_rounded_up_to_whole_cycles() -> None:
    assert [whole_cycles(rounds, 4) for rounds in (1, 4, 5, 8)] == [4, 4, 8, 8]
