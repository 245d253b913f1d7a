import math
import xml.etree.ElementTree as ElementTree

import pytest

from dspy_lambda_infra.logs.plots import bars, lines, nice, rows


def shapes(svg, tag, name):
    return [one for one in ElementTree.fromstring(svg).iter() if one.tag == tag and name in one.get("class", "")]


def test_bars_stand_on_each_other_with_heights_like_their_values():
    svg = bars(["a", "b"], [("calls", [3, 0]), ("errors", [1, 2])], ["tip & a", "b"], str)
    calls, errors = shapes(svg, "rect", "calls"), shapes(svg, "rect", "errors")
    assert (len(calls), len(errors)) == (1, 2)
    assert float(calls[0].get("height")) == pytest.approx(3 * float(errors[0].get("height")), abs=0.2)
    assert float(errors[0].get("y")) + float(errors[0].get("height")) == pytest.approx(
        float(calls[0].get("y")), abs=0.2
    )
    assert calls[0].find("title").text == "tip & a"


def test_lines_are_interrupted_where_there_is_no_value():
    svg = lines(list("abcd"), [("p50", [1, math.nan, 2, 3])], list("abcd"), str)
    (path,) = shapes(svg, "path", "p50")
    assert [part[0] for part in path.get("d").split() if part[0] in "ML"] == ["M", "M", "L"]
    assert len(shapes(svg, "circle", "p50")) == 3


def test_rows_escape_their_labels():
    svg = rows(["<script>alert(1)</script>"], [("input", [2.0]), ("output", [1.0])], ["1 & 2"])
    assert "<script>" not in svg
    assert "<script>" in ElementTree.fromstring(svg).find("text").text
    (first,), (second,) = shapes(svg, "rect", "input"), shapes(svg, "rect", "output")
    assert float(first.get("width")) == pytest.approx(2 * float(second.get("width")), abs=0.2)


@pytest.mark.parametrize("plot", [bars, lines])
def test_nothing_to_plot_is_an_empty_plot(plot):
    ElementTree.fromstring(plot([], [("calls", [])], [], str))
    ElementTree.fromstring(rows([], [("calls", [])], []))


def test_axes_end_at_round_numbers():
    assert [nice(value) for value in (0, 0.03, 1, 1.1, 7, 30, 501)] == [1, 0.05, 1, 2, 10, 50, 1000]
