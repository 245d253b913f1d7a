"""The trace context that events bring."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.telemetry.traces.callers import caller_of, senders_of
from dspy_lambda.telemetry.traces.context import Incoming

TRACE, SPAN = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
X_RAY = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN};Sampled="
JSON = st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))


def test_a_request_continues_its_clients_trace_whatever_the_headers_case():
    expected = Incoming(TRACE, SPAN, True)
    assert caller_of({"headers": {"Traceparent": TRACEPARENT}}, None, {}) == expected
    assert caller_of({"multiValueHeaders": {"traceparent": ["x", TRACEPARENT]}}, None, {}) == expected
    assert caller_of({"headers": {"X-Amzn-Trace-Id": X_RAY + "1"}}, None, {}) == expected


def test_a_direct_caller_sends_its_context_in_the_client_context():
    context = SimpleNamespace(client_context=SimpleNamespace(custom={"traceparent": TRACEPARENT}))
    assert caller_of({"inputs": {}}, context, {}) == Incoming(TRACE, SPAN, True)


def test_lambdas_own_header_continues_a_trace_that_x_ray_keeps():
    assert caller_of({}, None, {"_X_AMZN_TRACE_ID": X_RAY + "1"}) == Incoming(TRACE, SPAN, True)


def test_lambdas_not_sampled_is_nobodys_decision():
    assert caller_of({}, None, {"_X_AMZN_TRACE_ID": X_RAY + "0"}) == Incoming(TRACE, None, None)


def test_a_gateways_root_leads_to_lambdas_own_segment_of_that_trace():
    own = {"_X_AMZN_TRACE_ID": X_RAY + "1;Lineage=1:f5a2b9d1:0"}
    gateway = {"headers": {"X-Amzn-Trace-Id": f"Root=1-{TRACE[:8]}-{TRACE[8:]}"}}
    assert caller_of(gateway, None, own) == Incoming(TRACE, SPAN, True)
    client = {"headers": {"traceparent": f"00-{TRACE}-{'1' * 16}-01", "tracestate": "a=b"}}
    assert caller_of(client, None, own) == Incoming(TRACE, SPAN, True, "a=b")


def test_lambdas_own_header_replaces_no_other_trace_and_no_callers_no():
    own = {"_X_AMZN_TRACE_ID": X_RAY + "1"}
    other = {"headers": {"traceparent": f"00-{'1' * 32}-{SPAN}-01"}}
    assert caller_of(other, None, own) == Incoming("1" * 32, SPAN, True)
    refused = {"headers": {"traceparent": f"00-{TRACE}-{'1' * 16}-00"}}
    assert caller_of(refused, None, own) == Incoming(TRACE, "1" * 16, False)
    gateway = {"headers": {"X-Amzn-Trace-Id": f"Root=1-{TRACE[:8]}-{TRACE[8:]}"}}
    assert caller_of(gateway, None, {"_X_AMZN_TRACE_ID": X_RAY + "0"}) == Incoming(TRACE, None, None)


def test_records_name_their_senders():
    records = [
        {"messageId": "a", "attributes": {"AWSTraceHeader": X_RAY + "1"}},
        {"messageId": "b", "messageAttributes": {"traceparent": {"stringValue": TRACEPARENT, "dataType": "String"}}},
        {"messageId": "c", "attributes": {}},
        {"messageId": "d", "attributes": {"AWSTraceHeader": "nonsense"}},
    ]
    assert senders_of({"Records": records}) == {"a": (TRACE, SPAN), "b": (TRACE, SPAN)}


@given(JSON)
def test_no_event_raises(value):
    for event in (value, {"headers": value, "multiValueHeaders": {"traceparent": value}}, {"Records": value}):
        caller_of(event, None, {})
        senders_of(event)
    senders_of({"Records": [{"messageId": value, "attributes": value, "messageAttributes": value}]})
    senders_of({"Records": [{"messageId": "a", "messageAttributes": {"traceparent": value}}]})
