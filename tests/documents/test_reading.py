"""The reader of documents: what it finds, which comment is about what, and comments that are about nothing."""

import pytest
from documents.reading import Command, Mark, read
from documents.running import files, make_targets, replaced, same_output

PAGE = """\
# A page

<!-- not run (make all): takes an hour; never -->

Say `make all`, or `refdiff
  info` and `not a command`.

<!-- run with steps=3 in place of steps=500 -->
<!-- file it.toml -->

```toml
steps=500
```

## A section

<!-- run by tests/a.py: elsewhere -->

Some words.

```sh
make all     # the whole
refdiff a b    which explains itself

refdiff "x  y"
refdiff train \\
    --set a=1 \\
    --set b=2    # three lines
```

### Below it

```python
1
```

## Another

```text
2
```
"""


def test_blocks_commands_and_what_the_comments_are_about():
    blocks, commands = read("a.md", PAGE)
    assert [(b.line, b.language, [m.kind for m in b.marks]) for b in blocks] == [
        (12, "toml", ["run with", "file"]),
        (22, "sh", ["run by"]),
        (34, "python", ["run by"]),
        (40, "text", []),
    ]
    never = Mark("not run", "make all", "takes an hour; never")
    assert commands[:2] == [
        Command("a.md", 22, "make all", (never, Mark("run by", "", "tests/a.py: elsewhere"))),
        Command("a.md", 23, "refdiff a b", (Mark("run by", "", "tests/a.py: elsewhere"),)),
    ]
    assert commands[3].text == "refdiff train --set a=1 --set b=2"
    assert commands[4:] == [
        Command("a.md", 5, "make all", (never,), inline=True),
        Command("a.md", 5, "refdiff info", (), inline=True),
    ]
    assert replaced(blocks[0].text, blocks[0].marks) == "steps=3\n"
    assert files(blocks) == {"it.toml": "steps=500\n"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- a remark -->\n```sh\nmake\n```\n", "a.md:1: expected a comment of"),
        ("<!-- not run -->\n```sh\nmake\n```\n", "a.md:1: expected a comment of"),
        ("Words.\n\n<!-- not run: no time -->\n\nWords.\n", "a.md:5: expected a block under the comment above"),
        ("Words.\n\n<!-- not run: no time -->\n", "these comments are about nothing"),
        ("<!-- not run (make all): no time -->\n```sh\nmake some\n```\n", "these comments are about nothing"),
        ("```sh\nmake\n", "a.md:1: a block without an end"),
    ],
)
def test_comments_that_are_about_nothing(text, message):
    with pytest.raises(ValueError, match=message):
        read("a.md", text)


def test_a_replacement_that_replaces_nothing():
    with pytest.raises(AssertionError, match="'steps=500' is not in"):
        replaced("steps=400", (Mark("run with", "", "steps=3 in place of steps=500"),))


def test_outputs_are_the_same_but_for_last_digits():
    assert same_output("a [ 1.0000001e-05 2]\n", "a [1e-05   2 ]")
    assert not same_output("a 1.001", "a 1.0")
    assert not same_output("a 1.0", "b 1.0")
    assert not same_output("a 1.0 2.0", "a 1.0")


def test_targets_and_variables_of_a_makefile():
    makefile = "X ?= 3\nY := 4\n.PHONY: a\na: b\n\techo\n.venv/x: a\nb-c:\n"
    assert make_targets(makefile) == ({"a", "b-c"}, {"X"})
