from dspy_lambda_infra.texts import texts


def test_values_and_names_of_mappings_are_texts_with_their_places():
    value = {"a": {"b": ["x", {"c": 1}]}, 2: None}
    assert list(texts(value)) == [
        (("a",), "a"),
        (("a", "b"), "b"),
        (("a", "b"), "x"),
        (("a", "b", "c"), "c"),
        (("a", "b", "c"), "1"),
        (("2",), "2"),
        (("2",), "None"),
    ]
