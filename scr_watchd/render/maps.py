"""How maps are written: in keys that fit into nginx's own buckets, and values of any length."""

from collections.abc import Iterable, Mapping

from scr_watchd.render import quote

_PIECE = 38  # http.conf cuts names and tags at the same places


def mapping(source: str, variable: str, tokens: Mapping[str, str], *, default: str = "''") -> str:
    """One ``map``; ``tokens`` are written as they are, so they must be tokens already."""
    lines = [f"'{key}' {token};\n" for key, token in tokens.items()]
    return mapping_of(source, variable, lines, default=default)


def mapping_of(source: str, variable: str, lines: Iterable[str], *, default: str = "''") -> str:
    """One ``map`` of ``lines`` like those of ``mapping``."""
    return f"map {source} ${variable} {{\ndefault {default};\n{''.join(lines)}}}\n"


def constant(variable: str, token: str) -> str:
    return f"map '' ${variable} {{ default {token}; }}\n"


class Pieces:
    """A chain of maps for keys that are too long for one.

    Map ``i`` takes ``NUMBER:PIECE``, the number of what was found so far and the next piece, to the
    next number; the last map takes it to the value. A missing piece is empty and adds nothing, so a
    key only matches as a whole.
    """

    def __init__(self, count: int) -> None:
        self._steps: list[dict[str, str]] = [{} for _ in range(count)]

    def add(self, start: str, key: str, token: str) -> None:
        *steps, last = self._steps
        number = start
        for index, step in enumerate(steps):
            piece = key[index * _PIECE : (index + 1) * _PIECE]
            number = step.setdefault(f"{number}:{piece}", base36(len(step)))
        last[f"{number}:{key[len(steps) * _PIECE :]}"] = token

    def maps(self, start: str, piece: str, number: str, variable: str) -> list[str]:
        """The chain; none if there is no key, since each map costs nginx time."""
        if not self._steps[-1]:
            return []
        texts, source = [], start
        for index, step in enumerate(self._steps, 1):
            target = variable if index == len(self._steps) else f"{number}_{index}"
            texts.append(mapping(f'"${source}:${piece}{index}"', target, step))
            source = target
        return texts


class LongValues:
    """Makes tokens of any length: what exceeds one token is cut into variables that it names.

    Every variable costs each request a few bytes, so there are as few as can be.
    """

    def __init__(self) -> None:
        self.maps: list[str] = []

    def token(self, items: Iterable[str], *, separator: str) -> str:
        """``items`` joined by ``separator`` as one token; they hold no ``'``, no ``$``, and a
        backslash only before ``u``."""
        return self.quoted(separator.join(items))

    def quoted(self, text: str) -> str:
        """``text``, like that of ``token``, as one."""
        if len(text) <= quote.TOKEN_BYTES:
            return f"'{text}'"
        return self.joined([self.variable(chunk) for chunk in _cut(text)])

    def joined(self, variables: Iterable[str]) -> str:
        """What ``variables``, which this made, hold one after the other, as one token."""
        names = list(variables)
        while len(text := "".join(names)) > quote.TOKEN_BYTES:
            many = quote.TOKEN_BYTES // max(map(len, names))
            names = [
                self.variable("".join(names[start : start + many])) for start in range(0, len(names), many)
            ]
        return f"'{text}'"

    def variable(self, text: str) -> str:
        """A variable that holds ``text``, which fits into a token."""
        name = f"scr_chunk_{base36(len(self.maps))}"
        self.maps.append(constant(name, f"'{text}'"))
        return f"${{{name}}}"


def _cut(text: str) -> Iterable[str]:
    """``text`` in pieces that are tokens by themselves: none ends in a backslash."""
    start = 0
    while start < len(text):
        end = start + quote.TOKEN_BYTES
        while text[end - 1 : end] == "\\":
            end -= 1
        yield text[start:end]
        start = end


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    digits = _DIGITS[number % 36]
    while number := number // 36:
        digits = _DIGITS[number % 36] + digits
    return digits
