"""The command that repeats a run."""

import shlex

from sslbt.config import STAGES
from sslbt.errors import UserError
from sslbt.parameters import preset_values
from sslbt.tracking.run import CONFIG
from sslbt.tracking.store import get_run


def command(run_id: str) -> str:
    """What was typed, or could have been, for this run: the parameters that are not the default; "" for no run."""
    try:
        run = get_run(run_id)
    except UserError:
        return ""
    stage = run.data.tags.get("stage", "")
    if stage not in STAGES:
        return ""
    config = STAGES[stage]
    usual = {name: field.default for name, field in config.model_fields.items()}
    usual |= preset_values(config, run.data.params.get(CONFIG + "preset", "quick"))
    given = {name: run.data.params.get(CONFIG + name, "") for name in config.model_fields}
    changed = {name: value for name, value in given.items() if value and value != str(usual[name])}
    flags = [f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in changed.items()]
    return " ".join(["sslbt", stage, *flags])
