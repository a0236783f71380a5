import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.retrieval.index import Hit
from rollout.retrieval.vectors import Vectors, kept_as


def drawn(count, width, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def in_slices(matrix, size):
    return [matrix[i : i + size] for i in range(0, len(matrix), size)]


def exact(matrix, queries, count):
    """The best of each query by float64 arithmetic, rounded as scores are."""
    scores = [np.array([float(np.dot(row.astype(float), q.astype(float))) for row in matrix], np.float32) for q in queries]
    return [[Hit(i, float(own[i])) for i in np.lexsort((np.arange(len(own)), -own))[:count].tolist()] for own in scores]


def test_the_largest_inner_products_are_found_and_ties_go_by_position():
    vectors = Vectors([np.array([[1, 0], [0, 2]], np.float32), np.array([[2, 0], [0, 2], [3, 4]], np.float32)])
    assert vectors.top(np.array([[0, 1], [1, 0]], np.float32), 3) == [
        [Hit(4, 4), Hit(1, 2), Hit(3, 2)],
        [Hit(4, 3), Hit(2, 2), Hit(0, 1)],
    ]


def test_no_more_are_found_than_there_are():
    assert [len(hits) for hits in Vectors([drawn(3, 4)]).top(drawn(2, 4), 20)] == [3, 3]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 60),
    size=st.integers(1, 25),
    count=st.integers(1, 9),
    distinct=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_the_hits_are_those_of_an_exact_search_even_among_equals(rows, size, count, distinct, seed):
    matrix = drawn(distinct, 8, seed)[np.arange(rows) % distinct]
    queries = drawn(3, 8, seed + 100)
    found = Vectors(in_slices(matrix, size)).top(queries, count)
    wanted = exact(matrix, queries, min(count, rows))
    assert [[hit.position for hit in own] for own in found] == [[hit.position for hit in own] for own in wanted]
    assert np.allclose([hit.score for own in found for hit in own], [hit.score for own in wanted for hit in own], rtol=1e-6)


def test_bits_depend_on_neither_slices_nor_the_other_queries():
    matrix, queries = drawn(500, 48), drawn(70, 48, 1)
    together = Vectors([matrix]).top(queries, 20)
    assert Vectors(in_slices(matrix, 37)).top(queries, 20) == together
    assert [Vectors(in_slices(matrix, 64)).top(queries[i : i + 1], 20)[0] for i in range(70)] == together


def test_scores_of_given_passages_are_the_bits_that_a_search_gives():
    vectors, [query] = Vectors(in_slices(drawn(200, 48), 32)), drawn(1, 48, 1)
    [hits] = vectors.top(query[None], 200)
    positions = np.array([hit.position for hit in hits])
    scores, none, few = vectors.scores(query[None].repeat(3, 0), [positions, positions[:0], positions[7:9]])
    assert scores.dtype == np.float32 and scores.tolist() == [hit.score for hit in hits]
    assert none.shape == (0,) and few.tolist() == scores[7:9].tolist()


def test_a_query_of_zeros_finds_the_first_passages():
    assert Vectors(in_slices(drawn(9, 4), 2)).top(np.zeros((1, 4), np.float32), 3) == [[Hit(0, 0), Hit(1, 0), Hit(2, 0)]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrower_vectors_are_searched_as_what_they_were_rounded_to(dtype):
    matrix, queries = drawn(90, 16), drawn(2, 16, 1)
    kept = [kept_as(each, dtype) for each in in_slices(matrix, 40)]
    assert {each.itemsize for each in kept} == {2}
    rounded = torch.from_numpy(matrix).to(getattr(torch, dtype)).float().numpy()
    assert Vectors(kept).top(queries, 5) == Vectors([rounded]).top(queries, 5)


def test_a_mapped_file_is_searched_where_it_lies(tmp_path, recwarn):
    np.save(tmp_path / "slice.npy", drawn(50, 16))
    mapped = np.load(tmp_path / "slice.npy", mmap_mode="r")
    vectors = Vectors([mapped])
    assert vectors._slices[0].data_ptr() == mapped.ctypes.data and not mapped.flags.writeable
    assert vectors.top(drawn(1, 16, 1), 5) == Vectors([drawn(50, 16)]).top(drawn(1, 16, 1), 5) and not list(recwarn)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same_bits():
    matrix, queries = drawn(5000, 64), drawn(9, 64, 1)
    assert Vectors(in_slices(matrix, 1024), "cuda").top(queries, 20) == Vectors([matrix]).top(queries, 20)
