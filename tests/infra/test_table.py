from dspy_lambda_infra.table import table


def test_columns_are_as_wide_as_their_longest_cell_and_figures_are_to_the_right():
    rows = [["program", "at once"], ["AnswersQuestionsAboutContracts", "5"], ["Triage", "1,000"]]
    assert table(rows) == [
        "program                         at once",
        "AnswersQuestionsAboutContracts        5",
        "Triage                            1,000",
    ]
