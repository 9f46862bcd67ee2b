"""`rollback`: the version that was in service before, back into service."""

from sslbt.config import Rollback
from sslbt.steps.promote import Decision, log
from sslbt.terminal import say
from sslbt.tracking import registry
from sslbt.tracking.run import Run


def rollback(cfg: Rollback, run: Run) -> None:
    """Champion and previous change places, so that a second rollback undoes the first.

    Raises:
        UserError: nothing was in service before.
    """
    with registry.alone(cfg.name):
        before = registry.version(cfg.name, registry.CHAMPION)
        version = registry.version(cfg.name, registry.PREVIOUS)
        registry.promote(cfg.name, version)
    found = Decision(
        cfg.name,
        str(version.version),
        promoted=True,
        reason=f"rolled back from version {before.version}",
        asked_by=registry.asked_by(),
        metric="",
        champion=str(before.version),
    )
    say(f"{cfg.name} version {version.version} is champion again; version {before.version} is `{registry.PREVIOUS}`")
    run.describe(f"roll {cfg.name} back to version {version.version}")
    log(found, version, run)
