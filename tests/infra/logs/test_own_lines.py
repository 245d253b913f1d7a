from dspy_lambda_infra.logs.own_lines import OwnLines


def own(request, message="", text="x"):
    return {"function_request_id": request, "message": text, **({"message_id": message} if message else {})}


def taken(lines, *key):
    return [line for _, line in lines.take(*key)]


def test_lines_wait_for_their_call_and_are_taken_once():
    lines = OwnLines()
    assert lines.add(own("r1", "m1"), b"1")
    assert lines.add(own("r1", "m2"), b"2")
    assert lines.add(own("r1"), b"whole batch")
    assert taken(lines, "r1", "m1") == [b"whole batch", b"1"]
    assert taken(lines, "r1", "m2") == [b"2"]
    assert taken(lines, "r1", "m1") == []


def test_lines_of_no_request_and_metrics_are_not_kept():
    lines = OwnLines()
    assert not lines.add({"message": "x"}, b"")
    assert not lines.add({"_aws": {}, "function_request_id": "r"}, b"")


def test_lines_of_calls_that_never_end_are_dropped_and_counted():
    lines = OwnLines()
    for number in range(1_500):
        lines.add(own(f"r{number}"), b"x")
    for _ in range(300):
        lines.add(own("r1499"), b"x")
    assert lines.dropped == 500 + 101
    assert len(taken(lines, "r1499", "")) == 200
