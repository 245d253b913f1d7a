"""Parts of messages as content blocks."""

import pytest
from dspy.lm15 import (
    AudioPart,
    CitationPart,
    DocumentPart,
    ImagePart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
    UnsupportedFeatureError,
    VideoPart,
)
from dspy.lm15 import ContinuationState as State

from tests.handler.models.bedrock.converse.test_request import DATA, ask


def test_blank_texts_are_left_out_and_turns_alternate():
    made = ask(Message.user("one"), Message.assistant(" "), Message.user("two"), Message.assistant("three"))
    assert made["messages"] == [
        {"role": "user", "content": [{"text": "one"}, {"text": "two"}]},
        {"role": "assistant", "content": [{"text": "three"}]},
    ]


def test_the_user_begins_even_if_only_the_assistant_has_spoken():
    made = ask(Message.assistant("a"), Message.user("b"))
    assert [message["role"] for message in made["messages"]] == ["user", "assistant", "user"]
    assert made["messages"][0]["content"] == [{"text": "(no text)"}]


def test_a_document_is_named_and_never_without_a_text():
    parts = (DocumentPart(data=DATA), DocumentPart(media_type="text/csv", url="s3://bucket/a.csv"))
    assert ask(Message("user", parts=parts))["messages"][0]["content"] == [
        {"document": {"name": "document 1", "format": "pdf", "source": {"bytes": DATA}}},
        {"document": {"name": "document 2", "format": "csv", "source": {"s3Location": {"uri": "s3://bucket/a.csv"}}}},
        {"text": "(no text)"},
    ]


def test_the_id_of_another_providers_tool_call_is_replaced_in_call_and_result():
    call = ToolCallPart(id="an id/" * 20, name="f", input={})
    result = ToolResultPart(id=call.id, content=(TextPart("r"),), is_error=True)
    made = ask(Message.user("q"), Message("assistant", parts=(call,)), Message("tool", parts=(result,)))
    used = made["messages"][1]["content"][0]["toolUse"]["toolUseId"]
    assert made["messages"][2]["content"][0]["toolResult"] == {
        "toolUseId": used, "content": [{"text": "r"}], "status": "error",
    }  # fmt: skip
    assert used.startswith("call-")


def test_citations_of_an_earlier_answer_are_not_repeated_as_its_text():
    parts = (TextPart("a"), CitationPart(title="t", text="a source"))
    assert ask(Message.user("q"), Message("assistant", parts=parts))["messages"][1]["content"] == [{"text": "a"}]


def test_reasoning_without_bedrocks_own_signature_is_not_sent():
    thought = ThinkingPart(text="hm", continuation=(State(provider="anthropic", kind="s", data={}),))
    made = ask(Message.user("a"), Message("assistant", parts=(thought, TextPart("b"))))
    assert made["messages"][1]["content"] == [{"text": "b"}]


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(url="https://example.com/a.png"),
        ImagePart(media_type="image/tiff", data=DATA),
        DocumentPart(file_id="f"),
        VideoPart(media_type="video/x-msvideo", data=DATA),
        AudioPart(media_type="audio/L16", data=DATA),
        ToolResultPart(id="1", content=(AudioPart(data=DATA),)),
        ToolCallPart(id="1", name="search.web", input={}),
    ],
)
def test_what_converse_cannot_carry_is_refused_before_any_request(part):
    role = {"tool_result": "tool", "tool_call": "assistant"}.get(part.type, "user")
    with pytest.raises(UnsupportedFeatureError, match=r"bedrock: .* cannot be sent: Converse takes "):
        ask(Message(role, parts=(part,)))
