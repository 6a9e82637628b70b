package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// code is a block of a page, or words between backquotes.
	code = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$|`([^`\n]+)`")
	// called is our program with what follows it in a line of a shell.
	called = regexp.MustCompile(`\bpoplinctl ((?:'[^']*'|"[^"]*"|[^|>#;&)'"\n]|#\w)+)`)
	word   = regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`)
)

// What pages tell people to type is what the program takes: the command, its
// subcommand, its flags and their values.
func TestPagesCommands(t *testing.T) {
	found := 0
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range code.FindAllStringSubmatch(string(text), -1) {
				for _, m := range called.FindAllStringSubmatch(strings.ReplaceAll(c[1]+c[2], "\\\n", " "), -1) {
					found++
					if wrong := unknown(word.FindAllString(m[1], -1)); wrong != "" {
						t.Errorf("%s has poplinctl %s: %s", filepath.Base(page), m[1], wrong)
					}
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("%d commands: is the pattern right?", found)
	}
}

// unknown is what poplinctl would not take of a line.
func unknown(args []string) string {
	i := slices.IndexFunc(commands(), func(c command) bool { return c.name == args[0] })
	if i < 0 {
		if args[0] == "help" || args[0] == "COMMAND" || strings.HasPrefix(args[0], "-") {
			return ""
		}
		return "there is no such command"
	}
	c, args := commands()[i], args[1:]
	var sub []string
	if len(c.subcommands()) > 0 && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		if !slices.Contains(c.subcommands(), args[0]) && !strings.Contains(args[0], "|") && args[0] != "[flags]" {
			return "there is no subcommand " + args[0]
		}
		sub, args = args[:1:1], args[1:]
	}
	flags := flagsOf(c, sub...)
	for len(args) > 0 {
		name, value, given := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
		isFlag := strings.HasPrefix(args[0], "-") && name != ""
		args = args[1:]
		if !isFlag || name == "h" || name == "help" {
			continue
		}
		f := flags.Lookup(name)
		if f == nil {
			return "there is no flag -" + name
		}
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			continue
		}
		if !given && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		if value = strings.Trim(value, `'"`); value == "" || value == strings.ToUpper(value) {
			continue // the flag alone is spoken of, or a placeholder
		}
		if err := f.Value.Set(value); err != nil {
			return err.Error()
		}
	}
	return ""
}
