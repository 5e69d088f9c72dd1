"""The flow that tries settings: a flow of its own, so that its trials fan out over the runner it is given."""

from prefect import flow

from agepipe.config import LearnSettings, SearchSettings
from agepipe.learn.check_search import check_search
from agepipe.records import Choice, Rows
from agepipe.where import Where
from flows.runners import runner
from flows.strategies import STRATEGIES, Search
from tasks.board import board


@flow(name="search", flow_run_name="search over {settings.folds} folds")
def _search(rows: Rows, learn: LearnSettings, settings: SearchSettings, where: Where) -> Choice:
    with board(settings, learn, where) as shown:
        return STRATEGIES[settings.strategy](Search(rows, learn, settings, where, shown))


def search(rows: Rows, learn: LearnSettings, settings: SearchSettings, where: Where) -> Choice:
    """Train settings on every fold, each from a fresh network, and choose the best by its mean over folds.

    Raises:
        ConfigError: the strategy lacks a setting, or would ignore one.
    """
    check_search(settings, learn)
    with runner(where) as ready:
        return _search.with_options(task_runner=ready)(rows, learn, settings, where)
