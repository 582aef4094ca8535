"""6  Tokens: the next one after a caption and codes of a picture, one transformer for both.   [DALLE]"""

from dataclasses import dataclass

import numpy as np

from refdiff import models
from refdiff.models import Input
from refdiff.objectives import Objective, register_objective
from systems import operations, rows
from systems.networks import Transformer
from systems.runs import configuration

BEGIN, WORDS = 18, 19  # ten words, eight codes (10 .. 17), and what a line begins with


@dataclass(frozen=True)
class NextToken(Objective):
    """The cross entropy of each token after those before it; all words together weigh `text`, all codes the rest."""

    trains: tuple[str, ...] = ("transformer",)
    words: int = 3
    codes: int = 4
    text: float = 0.125

    def reads(self, networks):
        return {"tokens": Input((self.words,), "int"), "codes": Input((self.codes,), "int")}

    def draw(self, engine, data, key, memory):
        begin = np.full((len(data["tokens"]), 1), BEGIN)
        line = np.concatenate([begin, data["tokens"], data["codes"]], 1)
        return {"tokens": line[:, :-1], "target": line[:, 1:]}

    def loss_and_gradient(self, engine, networks, batch, key):
        net = networks["transformer"]
        logits, saved = models.forward(engine, net, batch, key.under("transformer"))
        shares = [self.text / self.words] * self.words + [(1 - self.text) / self.codes] * self.codes
        weight = np.array(shares, logits.real.dtype)
        each, of_each = operations.cross_entropy(logits, batch["target"])
        dlogits = operations.cross_entropy_backward(np.broadcast_to(weight / key.total, each.shape), of_each)
        _, g = models.backward(engine, net, dlogits, saved)
        return {"loss": each @ weight}, {"transformer": g}


register_objective("next_token", NextToken)
# Three codes follow from the caption; the last is free: what a picture says beyond its text.
CODES = 10 + np.stack(
    [rows.CAPTIONS[:, 0], rows.CAPTIONS[:, 1], (rows.CAPTIONS[:, 0] + rows.CAPTIONS[:, 1]) % 4, np.arange(rows.N) % 8],
    1,
)
data = rows.Rows(tokens=rows.CAPTIONS, codes=CODES)
config = configuration({"transformer": Transformer(WORDS, 7, 24, 1, out=WORDS)}, NextToken(), rate=1e-2, steps=150)
