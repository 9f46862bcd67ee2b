import pytest

from serve.invocations import images
from sslbt.errors import UserError


@pytest.mark.parametrize(
    "request_body",
    [
        {"dataframe_split": {"columns": ["image"], "data": [["a"], ["b"]]}},
        {"dataframe_split": {"columns": ["id", "image"], "index": [7, 9], "data": [[1, "a"], [2, "b"]]}},
        {"dataframe_records": [{"image": "a"}, {"image": "b", "id": 2}]},
        {"instances": [{"image": "a"}, {"image": "b"}]},
        {"instances": ["a", "b"]},
        {"inputs": [{"image": "a"}, {"image": "b"}]},
        {"inputs": {"image": ["a", "b"]}},
        {"inputs": ["a", "b"], "params": {}},
    ],
)
def test_every_form_of_mlflow_gives_the_column(request_body):
    assert images(request_body) == ["a", "b"]


def test_a_single_value_is_one_picture():
    assert images({"inputs": {"image": "a"}}) == ["a"]


@pytest.mark.parametrize(
    "request_body",
    [
        None,
        [],
        "image",
        {},
        {"image": "a"},
        {"instances": [], "inputs": []},
        {"instances": "a"},
        {"inputs": {"picture": ["a"]}},
        {"instances": [{"image": "a"}, "b"]},
        {"dataframe_records": {"image": ["a"]}},
        {"dataframe_records": ["a"]},
        {"dataframe_split": []},
        {"dataframe_split": {"data": [["a"]]}},
        {"dataframe_split": {"columns": ["picture"], "data": [["a"]]}},
        {"dataframe_split": {"columns": ["id", "image"], "data": [[1]]}},
        {"dataframe_split": {"columns": ["image"], "data": 5}},
    ],
)
def test_other_forms_are_refused_by_name(request_body):
    with pytest.raises(UserError, match=r"image|exactly one of|list"):
        images(request_body)
