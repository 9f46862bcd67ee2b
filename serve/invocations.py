"""The four ways a JSON request to MLflow's `/invocations` can hold a column `image`."""

from typing import Any

from sslbt.errors import UserError

COLUMN = "image"
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
ONE_OF_FORMS = f"exactly one of {', '.join(FORMS[:-1])} or {FORMS[-1]}"


def images(request: Any) -> list[Any]:
    """The cells of the column `image`, one a picture, not yet decoded.

    Args:
        request: the parsed body, with one of the keys of `FORMS`; `instances` and `inputs` may hold
            `[{"image": ...}, ...]`, `{"image": [...]}` or, as there is one column only, `[...]`.

    Raises:
        UserError: the request has another form.
    """
    given = [key for key in FORMS if isinstance(request, dict) and key in request]
    if len(given) != 1:
        raise UserError(f"the request must be a JSON object with {ONE_OF_FORMS}")
    form, table = given[0], request[given[0]]
    if form == "dataframe_split":
        return _split(table)
    if isinstance(table, dict) and form != "dataframe_records":
        cells = _column(table)
        return cells if isinstance(cells, list) else [cells]
    if not isinstance(table, list):
        raise UserError(f"{form} must be a list with one entry a picture")
    if form != "dataframe_records" and not any(isinstance(row, dict) for row in table):
        return table
    return [_column(row) for row in table]


def _split(table: Any) -> list[Any]:
    try:
        position = table["columns"].index(COLUMN)
        return [row[position] for row in table["data"]]
    except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f'dataframe_split must be {{"columns": ["{COLUMN}"], "data": [[...], ...]}} with a column "{COLUMN}"'
        ) from error


def _column(row: Any) -> Any:
    if not isinstance(row, dict) or COLUMN not in row:
        raise UserError(f'each record must be an object with a key "{COLUMN}"')
    return row[COLUMN]
