"""Read YAML and remember on which line each field stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import yaml

from partnerenrich.errors import ConfigError, Problem
from partnerenrich.settings import join

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_VALUES: Final = 100_000
"""Values of one document, with its aliases written out."""


@attrs.frozen
class YamlDocument:
    """
    A YAML text, read.

    Attributes:
        value: Mappings, lists and scalars.
        lines: Path of a field, as in `partnerenrich.errors.Problem.where`, to its line.
    """

    value: Any
    lines: dict[str, int] = attrs.field(repr=False)

    def located(self, error: ConfigError) -> ConfigError:
        """The same problems, each with the line of its field, or of the closest field around it."""
        return ConfigError([attrs.evolve(p, line=p.line or self._line(p.where)) for p in error.problems])

    def _line(self, where: str) -> int | None:
        while where and where not in self.lines:
            where = where[: max(where.rfind("."), where.rfind("["), 0)]
        return self.lines.get(where)


def read_yaml(text: str) -> YamlDocument:
    """
    Read one YAML document.

    Raises:
        ConfigError: The text is no YAML, a mapping has a key twice, or it holds too many values.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[str, int] = {}
        if node is not None:
            _walk(node, "", lines, iter(range(MOST_VALUES)))
        return YamlDocument(yaml.safe_load(text), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = Problem("", f"is no YAML: {error.problem}" + (f" on line {line}" if line else ""))
    except yaml.YAMLError:
        problem = Problem("", "is no YAML: it holds a character that YAML does not allow")
    except ValueError:
        problem = Problem("", "holds a date or a number that does not exist; put it in quotes")
    except RecursionError:
        problem = Problem("", "is nested too deeply")
    raise ConfigError([problem])


def _walk(node: yaml.Node, path: str, lines: dict[str, int], left: Iterator[int]) -> None:
    """Note the lines of all values, as many as `left` has. What an alias stands for is there again each time."""
    if next(left, None) is None:
        raise ConfigError(
            [Problem("", f"holds more than {MOST_VALUES} values, with its aliases written out; write fewer")]
        )
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            child = join(path, index)
            lines[child] = item.start_mark.line + 1
            _walk(item, child, lines, left)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = join(path, str(key.value))
            if child in lines and key.tag != "tag:yaml.org,2002:merge":
                raise ConfigError([Problem(child, "stands here twice; keep one", key.start_mark.line + 1)])
            lines[child] = key.start_mark.line + 1
            _walk(value, child, lines, left)
