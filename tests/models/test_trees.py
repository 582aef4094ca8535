"""Nested dictionaries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.models import flatten, leaves, tree_map, unflatten

keys = st.text("abc0_", min_size=1, max_size=3)
trees = st.dictionaries(
    keys, st.recursive(st.integers(), lambda part: st.dictionaries(keys, part, min_size=1, max_size=3), max_leaves=10)
)


@given(trees)
def test_unflatten_is_the_inverse_of_flatten(tree):
    flat = flatten(tree)
    assert unflatten(flat) == tree
    assert not any(isinstance(leaf, dict) for leaf in flat.values())
    assert flatten(unflatten(flat)) == flat
    assert list(flatten(unflatten(flat))) == list(flat)


@given(trees)
def test_leaves_are_found_by_their_paths(tree):
    for path, leaf in leaves(tree):
        node = tree
        for key in path:
            node = node[key]
        assert node == leaf
    assert list(flatten(tree).items()) == [("/".join(path), leaf) for path, leaf in leaves(tree)]


def test_leaves_come_in_the_order_of_insertion():
    tree = {"b": {"y": 1, "x": 2}, "a": 3}
    assert list(leaves(tree)) == [(("b", "y"), 1), (("b", "x"), 2), (("a",), 3)]
    assert flatten(tree) == {"b/y": 1, "b/x": 2, "a": 3}


@given(trees)
def test_tree_map_goes_leaf_by_leaf(tree):
    before = flatten(tree)
    assert flatten(tree_map(lambda a: a + 1, tree)) == {name: a + 1 for name, a in before.items()}
    reordered = unflatten(dict(reversed(before.items())))
    assert tree_map(lambda a, b, c: (a, b, c), tree, reordered, tree) == tree_map(lambda a: (a, a, a), tree)
    assert flatten(tree) == before


def test_tree_map_wants_all_keys():
    with pytest.raises(KeyError, match="x"):
        tree_map(lambda a, b: a, {"a": {"x": 1}}, {"a": {"y": 1}})
