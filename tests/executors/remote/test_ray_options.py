"""What `executor=ray` may be told is held to before any cluster is asked, and no secret gets into a record."""

import pytest

from zbench.config.ray import RayExecutorConfig, check_ray
from zbench.errors import ConfigError


def held(**options: object) -> str:
    """What is said of options; empty where they are taken."""
    try:
        check_ray(RayExecutorConfig(name="ray", target="x:Y", options=options))
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("runtime_env", [None, {}, {"env_vars": {"HF_HOME": "/shared/hf"}, "working_dir": "."}])
def test_rays_own_runtime_env_is_taken(runtime_env: object) -> None:
    assert not held(runtime_env=runtime_env)


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "wandb_api_key", "DB_PASSWORD"])
def test_a_secret_is_refused_with_the_way_out_and_its_value_is_not_shown(name: str) -> None:
    said = held(runtime_env={"env_vars": {"HF_HOME": "/shared/hf", name: "hf_abc"}})
    assert said.startswith(f"executor.options.runtime_env.env_vars.{name}=…: start Ray on the nodes with {name} set")
    assert "hf_abc" not in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"runtime_envs": {}}, "executor.options='runtime_envs': executor=ray takes runtime_env alone"),
        ({"runtime_env": "x"}, "executor.options.runtime_env='x': must be a dictionary"),
        ({"runtime_env": {"env_vars": ["A"]}}, "runtime_env.env_vars=\"['A']\": must be names and values"),
        ({"runtime_env": {"env_vars": {"A": 1}}}, "runtime_env.env_vars.A='1': must be text"),
    ],
)
def test_what_nobody_would_read_is_refused(options: dict[str, object], says: str) -> None:
    assert says in held(**options)
