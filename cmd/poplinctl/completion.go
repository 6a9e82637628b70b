package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
)

// scripts ask this program for the words that may come next, so that none of
// them knows a command.
var scripts = map[string]string{
	"bash": `_poplinctl() {
    local words
    words=$(poplinctl completion words "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _poplinctl poplinctl
`,
	"zsh": `#compdef poplinctl
_poplinctl() {
    local -a next
    next=(${(f)"$(poplinctl completion words ${words[2,CURRENT-1]} 2>/dev/null)"})
    compadd -- $next
}
compdef _poplinctl poplinctl
`,
	"fish": `complete -c poplinctl -f -a '(poplinctl completion words (commandline -opc)[2..-1] 2>/dev/null)'
`,
}

// completion prints a shell's script, or for the scripts the words that may
// follow those that are there.
func completion(_ context.Context, args []string) error {
	if len(args) > 0 && args[0] == "words" {
		for _, w := range next(args[1:]) {
			fmt.Println(w)
		}
		return nil
	}
	if len(args) == 0 || scripts[args[0]] == "" {
		return errors.New("which shell? write poplinctl completion bash, zsh or fish")
	}
	if err := parse(flag.NewFlagSet("poplinctl completion", flag.ContinueOnError), args[1:], nil); err != nil {
		return err
	}
	_, err := fmt.Fprint(os.Stdout, scripts[args[0]])
	return err
}

// next are the words that may follow.
func next(before []string) (words []string) {
	if len(before) == 0 {
		for _, c := range commands() {
			words = append(words, c.name)
		}
		return words
	}
	at := slices.IndexFunc(commands(), func(c command) bool { return c.name == before[0] })
	if at < 0 {
		return nil
	}
	c := commands()[at]
	subs := c.subcommands()
	if len(before) == 1 && len(subs) > 0 {
		return subs
	}
	var chosen []string
	if len(subs) > 0 {
		chosen = before[1:2]
	}
	flagsOf(c, chosen...).VisitAll(func(f *flag.Flag) { words = append(words, "-"+f.Name) })
	return words
}
