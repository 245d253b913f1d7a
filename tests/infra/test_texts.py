from dspy_lambda_infra.texts import texts


def test_texts_yields_mapping_keys_and_values_with_their_locations():
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
