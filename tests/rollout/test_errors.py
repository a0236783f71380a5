import pickle

import pytest

from rollout import errors
from rollout.errors import DataError, LapdogError

TREE = [LapdogError, *LapdogError.__subclasses__()]


def test_the_tree_is_the_one_in_the_docstring():
    drawn = [line.split()[1] for line in errors.__doc__.splitlines() if line.startswith(("├", "└"))]
    assert drawn == [kind.__name__ for kind in LapdogError.__subclasses__()]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_survives_pickling(kind):
    error = kind("place: value; remedy")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == "place: value; remedy" and isinstance(copy, LapdogError)


def test_a_data_error_names_file_and_line():
    copy = pickle.loads(pickle.dumps(DataError.at("train.jsonl", 17, "is not JSON")))
    assert type(copy) is DataError and str(copy) == "train.jsonl:17: is not JSON"
