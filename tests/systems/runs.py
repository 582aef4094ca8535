"""What the systems have in common: how a configuration is made, and the batches that a run of it sees."""

from refdiff.config import Config, NetworkConfig, RuleConfig, TrainConfig
from refdiff.objectives import ScheduleConfig
from refdiff.random import Key
from refdiff.sampling import SampleConfig
from refdiff.training import batch_indices

ADAMW = RuleConfig()


def configuration(networks, objective, rules=None, T=50, batch=32, rate=1e-2, engine="reference", **train):
    """A run of these networks, {name: configuration of it}, with rules of their own where they have one."""
    rules = {name: (rules or {}).get(name, ADAMW) for name in networks}
    return Config(
        networks={name: NetworkConfig(model, rules[name]) for name, model in networks.items()},
        schedule=ScheduleConfig("cosine", T),
        objective=objective,
        train=TrainConfig(**{"batch": batch, "learning_rate": rate, "warmup": 0, **train}),
        sample=SampleConfig(steps=min(T, 20)),
        engine=engine,
    )


def batch_at(config, data, step):
    """The batch of this step, from 1, as `train` makes it."""
    n = config.train.batch
    return data.rows(batch_indices(config.seed, (step - 1) * n, n, len(data)), Key(config.seed, step, 0, n, "data/"))
