package contents

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Text is a licence's text or a notice: what must go with a program.
type Text struct {
	Of   string // "go", or a module as path@version, Poplin itself without one
	Name string // of the file: LICENSE, NOTICE
	File string // where it is
}

// Texts are those of Go, of Poplin and of every module of the programs, by what
// they are of and their name.
func Texts(programs ...string) ([]Text, error) {
	linked, err := Linked(programs...)
	if err != nil {
		return nil, err
	}
	own, err := projectRoot()
	if err != nil {
		return nil, err
	}
	texts, err := textsIn(own, Project)
	if err != nil {
		return nil, err
	}
	for _, m := range linked {
		more, err := m.texts()
		if err != nil {
			return nil, err
		}
		texts = append(texts, more...)
	}
	slices.SortFunc(texts, func(a, b Text) int { return strings.Compare(a.Of+"/"+a.Name, b.Of+"/"+b.Name) })
	return texts, nil
}

func (m Module) texts() ([]Text, error) {
	dir, err := m.source()
	if err != nil {
		return nil, err
	}
	of := m.Path + "@" + m.Version
	if m.Path == "stdlib" {
		of = "go"
	}
	return textsIn(dir, of)
}

func textsIn(dir, of string) ([]Text, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("collect licence of %s: %w; run go mod download", of, err)
	}
	var texts []Text
	for _, entry := range entries {
		upper := strings.ToUpper(entry.Name())
		licence := slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE"}, func(prefix string) bool {
			return strings.HasPrefix(upper, prefix)
		})
		if licence && entry.Type().IsRegular() && filepath.Ext(upper) != ".GO" {
			texts = append(texts, Text{Of: of, Name: entry.Name(), File: filepath.Join(dir, entry.Name())})
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("collect licence of %s: %s holds no LICENSE, COPYING or NOTICE", of, dir)
	}
	return texts, nil
}

// Licences are the SPDX identifiers of what the module is under, sorted. A text
// that holds several licences gives each of them: all of them bind.
func (m Module) Licences() ([]string, error) {
	texts, err := m.texts()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, t := range texts {
		if strings.HasPrefix(strings.ToUpper(t.Name), "NOTICE") {
			continue
		}
		b, err := os.ReadFile(t.File)
		if err != nil {
			return nil, fmt.Errorf("read licence of %s: %w", t.Of, err)
		}
		found := identify(string(b))
		if len(found) == 0 {
			return nil, fmt.Errorf("read licence of %s: %s is none that is known here; may we use it? Then add what tells it apart to the table in install/contents/licences.go", t.Of, t.File)
		}
		ids = append(ids, found...)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("read licence of %s: it has a notice only", m.Path)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// known are the licences that may be linked in, by what each says and the
// others do not; without, what it must not say.
var known = []struct {
	id      string // SPDX
	says    []string
	without string
}{
	{id: "Apache-2.0", says: []string{"apache license", "version 2.0"}},
	{id: "MIT", says: []string{"permission is hereby granted, free of charge, to any person obtaining a copy", "the above copyright notice and this permission notice shall be included"}},
	{id: "ISC", says: []string{"permission to use, copy, modify, and", "distribute this software for any purpose with or without fee is hereby granted"}},
	{id: "BSD-3-Clause", says: []string{"redistributions of source code must retain", "redistributions in binary form must reproduce", "to endorse or promote products derived from"}},
	{id: "BSD-2-Clause", says: []string{"redistributions of source code must retain", "redistributions in binary form must reproduce"}, without: "to endorse or promote"},
	{id: "MPL-2.0", says: []string{"mozilla public license", "2.0"}},
}

// strange is what takes back what a licence gives.
var strange = []string{"gnu general public", "gnu lesser", "gnu affero", "commons clause", "business source license", "server side public license", "non-commercial"}

// identify names the licences in a text; none where it holds words of one that
// is not among them.
func identify(text string) []string {
	text = strings.Join(strings.Fields(strings.ToLower(text)), " ")
	contains := func(s string) bool { return strings.Contains(text, s) }
	if slices.ContainsFunc(strange, contains) && !contains("mozilla public license") {
		return nil
	}
	var ids []string
	for _, l := range known {
		missing := func(s string) bool { return !contains(s) }
		if !slices.ContainsFunc(l.says, missing) && (l.without == "" || !contains(l.without)) {
			ids = append(ids, l.id)
		}
	}
	return ids
}
