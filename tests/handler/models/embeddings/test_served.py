import pytest

from dspy_lambda.models.embeddings.served import is_served


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("openai/text-embedding-3-small", {}),
        ("openai/nomic-embed", {"api_base": "http://127.0.0.1/v1", "api_key": "k", "timeout": 3, "num_retries": 1}),
        ("text-embedding-3-large", {"dimensions": 256, "encoding_format": "float"}),
        ("bedrock/amazon.titan-embed-text-v2:0", {"normalize": True, "dimensions": 256}),
        ("bedrock/cohere.embed-english-v3", {"input_type": "search_query", "truncate": "END"}),
        ("bedrock/us.cohere.embed-v4:0", {"aws_region_name": "us-east-1"}),
    ],
)
def test_models_of_openai_and_bedrock_are_requested_natively(model, options):
    assert is_served(model, options)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("voyage/voyage-3", {}),
        ("cohere/embed-english-v3.0", {}),
        ("bedrock/amazon.titan-embed-image-v1", {}),
        ("azure/text-embedding-3-small", {}),
        ("openai/text-embedding-3-small", {"extra_headers": {}}),
        ("openai/text-embedding-3-small", {"encoding_format": "base64"}),
        ("bedrock/cohere.embed-english-v3", {"aws_profile_name": "p"}),
        (len, {}),
    ],
)
def test_other_models_and_unknown_options_are_left_to_dspy(model, options):
    assert not is_served(model, options)
