"""The networks, written once against an engine. A network is a frozen configuration; these functions take any of them.

p          = initialise(layout(config), seed)                   parameters, a tree
net        = Network(config, p)
y, saved   = forward(engine, net, {"x": x, "t": t})             inputs(config) says what it reads
dinputs, g = backward(engine, net, dy, saved, wrt=("x",))       g has the keys and shapes of p
y          = predict(engine, net, {"x": x, "t": t})             where no gradient is needed

`register` makes a network of yours known; see `registry`.
"""

from __future__ import annotations

from .classifier import ClassifierConfig as ClassifierConfig
from .conv_decoder import ConvDecoderConfig as ConvDecoderConfig
from .conv_encoder import ConvEncoderConfig as ConvEncoderConfig
from .inference import *
from .mlp import MLPConfig as MLPConfig
from .monotone import MonotoneConfig as MonotoneConfig
from .network import *
from .parameters import *
from .perceptron import PerceptronConfig as PerceptronConfig
from .presets import *
from .registry import *
from .table import TableConfig as TableConfig
from .trees import *
from .unet import UNetConfig as UNetConfig
