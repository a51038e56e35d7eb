"""`lbha completion`: what a shell must read to complete lbha's commands and options."""

from __future__ import annotations

import click

_BASH = """\
_lbha_completion() {
    local -a words=()
    local word type value IFS=' '
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        # bash makes three words of --node=cp1
        if [[ ${#words[@]} -gt 0 && ( $word == = || ${words[${#words[@]}-1]} == --*= ) ]]; then
            words[${#words[@]}-1]+=$word
        else
            words+=("$word")
        fi
    done

    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) _LBHA_COMPLETE=bash_complete "$1")
}

complete -o nosort -F _lbha_completion lbha
"""

_ZSH = """\
#compdef lbha

_lbha() {
    local -a plain described answer
    local type key descr
    (( $+commands[lbha] )) || return 1

    local -x COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) _LBHA_COMPLETE=zsh_complete
    answer=("${(@f)$(env lbha)}")
    [[ $PREFIX == --* ]] && compset -P 1 '*='  # --node=cp1: only what follows the sign is completed

    for type key descr in $answer; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain) if [[ $descr == _ ]]; then plain+=("$key"); else described+=("$key:$descr"); fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described
    (( $#plain )) && compadd -V unsorted -a plain
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _lbha "$@"  # the first TAB, which found this file in fpath; the next ones find the function
else
    compdef _lbha lbha  # eval or source
fi
"""

_FISH = """\
function _lbha_completion
    set -l word (commandline -ct)
    set -l option (string match -r -- '^--[^=]+=' $word; or echo)  # fish wants --node=cp1, not cp1

    for line in (env _LBHA_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=$word lbha)
        set -l answer (string split -m 1 , -- $line)  # type, word TAB description; with commas of its own
        switch $answer[1]
            case dir
                printf '%s\\n' $option(__fish_complete_directories $answer[2])
            case file
                printf '%s\\n' $option(__fish_complete_path $answer[2])
            case plain
                echo $option$answer[2]
        end
    end
end

complete --no-files --command lbha --arguments '(_lbha_completion)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""In place of click's. Its zsh does nothing on a shell's second TAB (the file found in fpath is the function,
and only its first call is `loadautofunc`) and makes `cp2` of `--node=cp2`; its fish and bash do not complete
that, and its fish shows no more of a description than stands before a comma. They read click's answers."""


@click.command()
@click.argument("shell", type=click.Choice(list(_SCRIPTS)))
def command(shell: str) -> None:
    """Print the completion for a shell. The Debian package lays it where the shells look.

    \b
    bash   lbha completion bash >/etc/bash_completion.d/lbha
    zsh    lbha completion zsh >~/.zfunc/_lbha    (a directory of fpath)
    fish   lbha completion fish >~/.config/fish/completions/lbha.fish

    Exit codes: 0 printed, 2 misuse.
    """
    click.echo(_SCRIPTS[shell], nl=False)
