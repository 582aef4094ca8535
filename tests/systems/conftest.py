"""The systems by name, and the finished runs that two of them begin with."""

import numpy as np
import pytest

from refdiff.models import tree_map
from refdiff.training import State, load_state, train
from systems import cascade, checks, consistency, latent
from systems.catalogue import ALONE, NAMES


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    """The folder of a trained autoencoder."""
    folder = tmp_path_factory.mktemp("autoencoder")
    train(latent.autoencoder, folder, data=latent.data, progress=False)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """The folder of a trained denoiser."""
    folder = tmp_path_factory.mktemp("teacher")
    train(consistency.teacher, folder, data=consistency.data, progress=False)
    return folder


@pytest.fixture(scope="session")
def latents(autoencoder):
    """The data of latents, and the numbers that belong to them."""
    _, state = load_state(autoencoder)
    return latent.prepare(state.trees["ema"], latent.data)


@pytest.fixture(params=NAMES)
def system(request):
    """A configuration, its data, and the state before its first step."""
    name = request.param
    if name in ALONE:
        config, data = ALONE[name].config, ALONE[name].data
    elif name == "autoencoder":
        config, data = latent.autoencoder, latent.data
    elif name == "latent":
        config = latent.config(request.getfixturevalue("autoencoder"))
        data, _ = request.getfixturevalue("latents")
    elif name == "consistency":
        folder = request.getfixturevalue("teacher")
        config, data = consistency.config(folder), consistency.data
        start = {"denoiser": tree_map(np.copy, load_state(folder)[1].trees["ema"]["denoiser"])}
        return config, data, State.first(config, start)
    else:
        size = {"base": 2, "upsampling": 4}[name]
        config, data = cascade.config(size), cascade.DATA[size]
    return config, data, State.first(config)


@pytest.fixture
def begun(system):
    """The same some steps on, when every turn has begun."""
    config, data, state = system
    return config, data, checks.trained(config, data, state, 4)[0].state()
