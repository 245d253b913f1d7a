from dspy_lambda_infra.table import table


def test_table_columns_fit_their_longest_cell_and_figures_align_right():
    rows = [["program", "at once"], ["AnswersQuestionsAboutContracts", "5"], ["Triage", "1,000"]]
    assert table(rows) == [
        "program                         at once",
        "AnswersQuestionsAboutContracts        5",
        "Triage                            1,000",
    ]
