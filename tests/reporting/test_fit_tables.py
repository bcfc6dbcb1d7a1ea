from rightbatch.reporting.fit_tables import definitions_sheet


def test_each_definition_has_its_parameters_and_who_it_is_from(plan_document):
    share = {"name": "share_of_step", "parameters": {"share": 0.9}, "value": 405.0}
    share |= {"low": 362.0, "high": None, "definition": "nine tenths", "who": "them"}
    plan_document["convergence"][0]["definitions"] = [share]
    (row,) = definitions_sheet(plan_document["convergence"]).rows
    assert row == (
        "target 0.15",
        "share of step, share 0.9",
        "405",
        "≥ 362",
        "nine tenths",
        "them",
    )


def test_fits_without_definitions_have_no_rows(plan_document):
    assert definitions_sheet(plan_document["convergence"]).rows == ()
