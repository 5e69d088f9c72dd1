"""Jinja's environment for all pages and the model card."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from agepipe.evaluation.figures import figure, gap, gap_span, span


def template(name: str) -> Template:
    """Load a template of `agepipe/reports/templates`; text is escaped, except in Markdown (`.md.j2`)."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("agepipe.reports"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
    )  # fmt: skip
    environment.filters |= {"figure": figure, "span": span, "gap": gap, "gap_span": gap_span}
    return environment
