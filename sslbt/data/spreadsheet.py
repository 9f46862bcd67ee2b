"""CSVs that people fill in: with commas, semicolons or tabs, and with the mark that Excel puts in front."""

from pathlib import Path

import pandas as pd


def read_csv(path: Path) -> pd.DataFrame:
    """Every cell as text, as it stands there; columns by their names in lower case, of which some may be equal.

    Raises:
        OSError: no such file, or no access to it.
        ValueError: no CSV in UTF-8, or a row is longer than the first.
    """
    first = path.read_text(encoding="utf-8-sig").partition("\n")[0]
    mark = max(",;\t", key=first.count)
    # Names are taken from the first row by hand: pandas would number equal ones, and take a longer row for an index.
    rows = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=mark)
    return rows[1:].set_axis([name.strip().lower() for name in rows.iloc[0]], axis=1)
