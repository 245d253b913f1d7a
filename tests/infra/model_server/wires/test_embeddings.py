import base64
import json
import math
import struct

import pytest
from botocore.exceptions import ClientError


def invoke(client, model, **body):
    return json.load(client.invoke_model(modelId=model, body=json.dumps(body))["body"])


def similarity(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_openai_embeddings_are_unit_vectors_that_share_words(models, send):
    texts = ["the red house", "the red car", "quite something else"]
    _, _, body = send("/v1/embeddings", {"model": "e", "input": texts, "dimensions": 256})
    answer = json.loads(body)
    one, other, third = (item["embedding"] for item in answer["data"])
    assert len(one) == 256
    assert math.isclose(similarity(one, one), 1)
    assert similarity(one, other) > similarity(one, third)
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert models.stats()["models"]["e"]["prompt_tokens"] == 9


def test_openai_embeddings_come_in_base64_if_requested(send):
    _, _, plain = send("/v1/embeddings", {"model": "e", "input": "a text"})
    _, _, packed = send("/v1/embeddings", {"model": "e", "input": "a text", "encoding_format": "base64"})
    data = base64.b64decode(json.loads(packed)["data"][0]["embedding"])
    vector = json.loads(plain)["data"][0]["embedding"]
    assert struct.unpack("<1536f", data) == pytest.approx(vector)


def test_titan_embeds_one_text(models, bedrock):
    model = "amazon.titan-embed-text-v2:0"
    answer = invoke(bedrock(), model, inputText="a text", dimensions=512, normalize=True)
    assert len(answer["embedding"]) == 512
    assert answer["inputTextTokenCount"] == 2
    assert models.stats()["models"][model]["prompt_tokens"] == 2


def test_cohere_embeds_several_texts_and_counts_in_a_header(bedrock):
    body = {"texts": ["a text", "another one here"], "input_type": "search_document"}
    answer = bedrock().invoke_model(modelId="cohere.embed-multilingual-v3", body=json.dumps(body))
    assert [len(vector) for vector in json.load(answer["body"])["embeddings"]] == [1024, 1024]
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-input-token-count"] == "5"
    typed = invoke(bedrock(), "cohere.embed-english-v3", **body, embedding_types=["float"])
    assert len(typed["embeddings"]["float"]) == 2


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("amazon.titan-embed-text-v2:0", {"inputText": "a", "dimensions": 3}),
        ("amazon.titan-embed-text-v2:0", {}),
        ("cohere.embed-english-v3", {"texts": ["a"] * 97, "input_type": "search_query"}),
        ("cohere.embed-english-v3", {"texts": ["a"]}),
        ("amazon.nova-lite-v1:0", {"inputText": "a"}),
    ],
)
def test_invalid_requests_get_bedrocks_validation_error(bedrock, model, body):
    with pytest.raises(ClientError) as error:
        invoke(bedrock(), model, **body)
    assert error.value.response["Error"]["Code"] == "ValidationException"
