# bash completion of vhostctl(1). The candidates come from the program itself.

_vhostctl() {
    # By blanks: names have ":" in them and options "=", at which bash splits its own words.
    local line=${COMP_LINE:0:COMP_POINT} words
    read -ra words <<<"$line"
    [[ $line == *[[:blank:]] ]] && words+=("")
    local last=$((${#words[@]} - 1))
    local IFS=$'\n'
    COMPREPLY=($(VHOSTCTL_COMPLETE=bash _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$last \
        vhostctl -- "${words[@]}" 2>/dev/null))
    # What stands before the last split is on the command line already.
    local breaks=${COMP_WORDBREAKS//[^:=]/}
    if [[ -n $breaks ]]; then
        local word=${words[last]}
        local rest=${word##*[$breaks]}
        COMPREPLY=("${COMPREPLY[@]#"${word%"$rest"}"}")
    fi
}

complete -F _vhostctl vhostctl
