"""Completion of the command line in bash, zsh and fish: all that can be typed → one script.

settings, recipes, loggers → **completion** → the shell. The script has all words in it, so that a completion
takes no Python; it is written again after an update.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from crosscontext.commandline import COMMON_FLAGS, constants, is_flag
from crosscontext.complaints import spelled
from crosscontext.datasets import NamedSettings, known_names
from crosscontext.fields import NAME, element, group, hint_at, places
from crosscontext.layers import COMMAND_LINE
from crosscontext.loggers import AUTO, NONE, logger_names
from crosscontext.planning import PretrainSettings
from crosscontext.recipes import shipped_recipes
from crosscontext.settings import Settings

Shell = Literal["bash", "zsh", "fish"]

_Cases = Callable[[Sequence[tuple[str, "Words"]]], Iterator[str]]
_PLAIN = re.compile(
    r"[A-Za-z0-9_.:>=+-]+"
)  # other packages choose their names, and a script runs what it is given


class CompletionSettings(Settings):
    """Which script to write."""

    shell: Shell
    """The shell that is to complete words."""


class Script(Settings):
    """A script for a shell."""

    shell: Shell
    """The shell that reads it."""

    text: str
    """Its lines."""


class Words(NamedTuple):
    """What may stand behind an option, or behind the verb if there is none yet."""

    option: str
    words: Sequence[str]

    position: int | None
    """Only as the value of this number, from 0 on; None: as any."""


class Completions(NamedTuple):
    """What can be typed behind one verb."""

    options: Sequence[str]
    values: Sequence[Words]


def completion(settings: CompletionSettings) -> Script:
    """Write the script of a shell."""
    table = {name: _completions(verb) for name, verb in known_verbs().items()}
    write = {"bash": _bash, "zsh": _zsh, "fish": _fish}[settings.shell]
    return Script(shell=settings.shell, text=write(table))


class VerbWords(NamedTuple):
    """What can follow a verb."""

    kind: type[Settings]
    flags: tuple[str, ...] = ()

    recipes: str = ""
    """Verb whose shipped recipes are taken."""

    recipe_position: int = 0


def known_verbs() -> dict[str, VerbWords]:
    """What each verb takes."""
    from crosscontext.comparison import CompareSettings
    from crosscontext.conversion import ConvertSettings
    from crosscontext.duplicates import DedupeSettings
    from crosscontext.embedding import EmbedSettings
    from crosscontext.evaluation import EvaluateSettings
    from crosscontext.examination import DoctorSettings
    from crosscontext.exporting import ExportSettings
    from crosscontext.forecasting import PlanSettings
    from crosscontext.labelling import LabelSettings
    from crosscontext.outlying import OutliersSettings
    from crosscontext.page import ReportSettings
    from crosscontext.preview import PreviewSettings
    from crosscontext.searching import SearchSettings
    from crosscontext.studies import StudySettings
    from crosscontext.submission import SubmitSettings
    from crosscontext.verification import VerifyResumeSettings

    json = ("json",)
    return {
        "pretrain": VerbWords(PretrainSettings, (), "pretrain"),
        "evaluate": VerbWords(EvaluateSettings, json, "evaluate", recipe_position=1),
        "compare": VerbWords(CompareSettings),
        "report": VerbWords(ReportSettings, json),
        "study": VerbWords(StudySettings, ("dry_run",), "study"),
        "verify-resume": VerbWords(VerifyResumeSettings, (), "pretrain"),
        "views": VerbWords(PreviewSettings),
        "doctor": VerbWords(DoctorSettings, json),
        "convert": VerbWords(ConvertSettings, json),
        "export": VerbWords(ExportSettings, json),
        "embed": VerbWords(EmbedSettings, json),
        "search": VerbWords(SearchSettings, json),
        "dedupe": VerbWords(DedupeSettings, json),
        "outliers": VerbWords(OutliersSettings, json),
        "label": VerbWords(LabelSettings, json),
        "plan": VerbWords(PlanSettings, json, "pretrain"),
        "submit": VerbWords(SubmitSettings, json, "pretrain"),
        "completion": VerbWords(CompletionSettings, json),
    }


def _completions(verb: VerbWords) -> Completions:
    options = [spelled((flag,), COMMAND_LINE) for flag in (*verb.flags, *COMMON_FLAGS)]
    values = []
    if verb.recipes:
        names = [name for name, _ in shipped_recipes(verb.recipes)]
        values.append(Words("", names, verb.recipe_position))
    if verb.kind is CompletionSettings:
        values.append(Words("", list(constants(hint_at(verb.kind, ("shell",)))), 0))
    for path in dict.fromkeys(place.path for place in places(verb.kind) if place.path[-1] != NAME):
        option, hint = spelled(path, COMMAND_LINE), hint_at(verb.kind, path)
        options.append(option)
        if is_flag(hint):
            options.append(spelled((*path[:-1], f"no_{path[-1]}"), COMMAND_LINE))
        elif words := list(filter(_PLAIN.fullmatch, _words(path, hint))):
            values.append(Words(option, words, 0 if element(hint) is None else None))
    return Completions(sorted(options), values)


def _words(path: tuple[str, ...], hint: Any) -> Iterable[str]:
    """Names and constants that a field takes; none where only the user can know them."""
    if path == ("loggers",):
        return [AUTO, NONE, *logger_names()]
    one = hint if element(hint) is None else element(hint)
    choices = group(one)
    if choices is None:
        return constants(one)
    if NamedSettings in choices.members.values():
        return known_names()
    if path[-1] == "backbone":
        depths = hint_at(PretrainSettings, ("backbone", "depth"))
        return [f"resnet{depth}" for depth in constants(depths)]
    return sorted(choices.members)


_BASH = """\
# Completion of crosscontext for bash, which looks for it here:
# crosscontext completion bash > ~/.local/share/bash-completion/completions/crosscontext
_crosscontext() {
    local current=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} option='' number
    local -i between=0
    local -a found=()
    if ((COMP_CWORD == 1)); then
        found=(VERBS)
    else
        for ((number = 2; number < COMP_CWORD; number++)); do
            case ${COMP_WORDS[number]} in
                --*) option=${COMP_WORDS[number]} between=0 ;;
                *) between+=1 ;;
            esac
        done
        if [[ $current == -* ]]; then
            case $verb in
OPTIONS
            esac
        else
            case "$verb $option" in
VALUES
            esac
        fi
    fi
    COMPREPLY=($(compgen -W "${found[*]}" -- "$current"))
}
complete -o default -F _crosscontext crosscontext"""

_ZSH = """\
#compdef crosscontext
# Completion of crosscontext for zsh. Below compinit, ~/.zshrc has to say: source ~/.crosscontext.zsh
# crosscontext completion zsh > ~/.crosscontext.zsh
_crosscontext() {
    local verb=${words[2]} option='' number
    local -i between=0
    local -a found
    if ((CURRENT == 2)); then
        found=(VERBS)
    else
        for ((number = 3; number < CURRENT; number++)); do
            case ${words[number]} in
                --*) option=${words[number]} between=0 ;;
                *) between+=1 ;;
            esac
        done
        if [[ ${words[CURRENT]} == -* ]]; then
            case $verb in
OPTIONS
            esac
        else
            case "$verb $option" in
VALUES
            esac
            _files
        fi
    fi
    compadd -- $found
}
compdef _crosscontext crosscontext"""

_FISH = """\
# Completion of crosscontext for fish, which looks for it here:
# crosscontext completion fish > ~/.config/fish/completions/crosscontext.fish
function __crosscontext_words
    set -l before (commandline -opc)
    if test (count $before) -eq 1
        printf '%s\\n' VERBS
        return
    end
    set -l verb $before[2]
    set -e before[1 2]
    set -l option ''
    set -l between 0
    for word in $before
        if string match -q -- '--*' $word
            set option $word
            set between 0
        else
            set between (math $between + 1)
        end
    end
    if string match -q -- '-*' (commandline -ct)
        switch $verb
OPTIONS
        end
    else
        switch "$verb $option"
VALUES
        end
    end
end
complete -c crosscontext -n 'test (count (commandline -opc)) -eq 1' -f  # no files where a verb stands
complete -c crosscontext -a '(__crosscontext_words)'"""


def _bash(table: Mapping[str, Completions]) -> str:
    return _filled(_BASH, table, _bourne_cases)


def _zsh(table: Mapping[str, Completions]) -> str:
    return _filled(_ZSH, table, _bourne_cases)


def _fish(table: Mapping[str, Completions]) -> str:
    return _filled(_FISH, table, _fish_cases)


def _filled(template: str, table: Mapping[str, Completions], cases: _Cases) -> str:
    options = [(verb, Words("", found.options, None)) for verb, found in table.items()]
    values = [(f"{verb} {words.option}", words) for verb, found in table.items() for words in found.values]
    lines = template.replace("VERBS", _quoted([*table, "--help", "--version"]))
    return lines.replace("OPTIONS", "\n".join(cases(options))).replace("VALUES", "\n".join(cases(values)))


def _bourne_cases(rows: Sequence[tuple[str, Words]]) -> Iterator[str]:
    for key, (_, words, position) in rows:
        condition = "" if position is None else f"((between == {position})) && "
        yield f"                '{key}') {condition}found=({_quoted(words)}) ;;"


def _fish_cases(rows: Sequence[tuple[str, Words]]) -> Iterator[str]:
    for key, (_, words, position) in rows:
        condition = "" if position is None else f"test $between -eq {position}; and "
        yield f"            case '{key}'"
        yield f"                {condition}printf '%s\\n' {_quoted(words)}"


def _quoted(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))
