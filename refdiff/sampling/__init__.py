"""Samples from a trained model: its predictions, the samplers of `process`, and noise that a sample's number decides.

In this order: a network becomes a Model, `model(x_t, t) -> (prediction, v or None)`, which is told its conditions
(`denoiser`); two become one that is guided, predictions combined, v the conditional one's (`guided`), or one and a
classifier, in the score form; `process.predictor` makes of predictions (x0_hat, eps_hat, v), x0_hat held within the range
of the data as `sample.threshold` says, after all guidance; and a sampler of `process` makes of these its steps, `ancestral`
with `sample.variance=learned` their variance too. Of `ancestral` a classifier shifts the mean, after thresholding, in place
of the score form.
"""

from .checking import *
from .conditions import *
from .denoisers import *
from .networks import *
from .run import *
from .settings import SampleConfig as SampleConfig
from .trained import *
