import random

import pytest

from dspy_lambda_infra.traces.spans import spans
from dspy_lambda_infra.traces.tree import call, trace_id, trees
from tests.infra.traces import otlp
from tests.infra.traces.otlp import REQUEST, TRACE, request, span


def read(*found):
    return list(spans(request(*found)))


def shape(node):
    return {node.span.name: [shape(child) for child in node.children]}


def test_spans_are_arranged_whatever_order_they_arrive_in():
    found = read(*otlp.call())
    expected = [shape(root) for root in trees(found)]
    assert [next(iter(one)) for one in expected] == ["POST /Qa"]
    random.Random(1).shuffle(found)
    assert [shape(root) for root in trees(found + found[:3])] == expected


def test_a_span_whose_parent_is_missing_begins_a_tree():
    found = read(span(1, 99, "orphan", 5, 6), span(2, 0, "root", 0, 9), span(3, 3, "own parent", 7, 8))
    assert [shape(root) for root in trees(found)] == [{"root": []}, {"orphan": []}, {"own parent": []}]


def test_spans_that_name_each_other_as_parents_are_all_shown_once():
    found = read(span(1, 2, "a", 0, 1), span(2, 3, "b", 1, 2), span(3, 1, "c", 2, 3), span(4, 3, "d", 3, 4))
    names = [one.name for root in trees(found) for one in root.walk()]
    assert sorted(names) == ["a", "b", "c", "d"]


def test_deep_trees_need_no_recursion():
    (root,) = trees(read(*(span(n + 1, n, "s", n, 9_999) for n in range(5_000))))
    assert sum(1 for _ in root.walk()) == 5_000


def test_siblings_that_overlap_are_marked():
    times = [(0, 50), (10, 20), (30, 40), (50, 60), (60, None), (70, 80)]
    (root,) = trees(read(span(1, 0, "root", 0, 100), *(span(n + 2, 1, str(n), *t) for n, t in enumerate(times))))
    assert [child.span.name for child in root.children if child.is_parallel] == ["0", "1", "2", "4", "5"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (REQUEST, 8),
        (f"c-{REQUEST}", 8),
        (REQUEST[:8], 8),
        (TRACE, 16),
        (TRACE.upper(), 16),
        (f"1-{TRACE[:8]}-{TRACE[8:]}", 16),
        ("message-2", 1),
        (REQUEST[:7], 0),
        ("", 0),
    ],
)
def test_a_call_is_found_by_each_of_its_ids(name, count):
    batch = otlp.call("other-request", first=101)
    batch[1]["attributes"] += otlp.attributes({"dspy_lambda.message_id": "message-1"})
    batch[7]["attributes"] += otlp.attributes({"messaging.message.id": "message-2"})
    assert len(call(read(*otlp.call(), *batch), name)) == count


def test_of_a_record_only_its_part_of_the_batch_is_shown():
    batch = otlp.call("batch")
    batch[1]["attributes"] += otlp.attributes({"dspy_lambda.message_id": "message-1"})
    assert next(one.name for one in call(read(*batch), "message-1")) == "invoke_workflow Qa"
    assert len(call(read(*batch), "message-1")) == 7


def test_x_rays_form_of_a_trace_id_is_understood():
    assert trace_id("Root=1-5759e988-bd862e3fe1be46a994272793") == "5759e988bd862e3fe1be46a994272793"
    assert trace_id("1-2-3") == "1-2-3"
