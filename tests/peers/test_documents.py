"""The commands of the documents that need a peer, which tests/documents leaves to `make peers`."""

import warnings

import pytest
from documents.running import refdiff, smaller, wrong
from documents.test_documents import COMMANDS, marked

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import diffusers  # noqa: F401 - it takes seconds, which are no test's


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", sorted({command.text for command, _ in marked(COMMANDS, "run in peers")}))
def test_a_command_runs(text):
    text = smaller(text)
    status, out, err = refdiff(text)
    assert not wrong(text, status, err)
    assert "claims hold" in out
