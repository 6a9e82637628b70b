// Command release makes what a user downloads of one version, from programs and
// images that were built before: archives of the programs, the manifests with
// the names of the images, a list of what is linked in (CycloneDX), notes from
// the change log, and checksums of it all. The same input gives the same bytes.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"poplin.dev/poplin/install/contents"
)

// release is one version, and where its parts are.
type release struct {
	version string
	bin     string // programs; those of another architecture in a directory of its name
	out     string
	changes string
	chart   string // directory of the chart
	image   string // repository of images: registry.example/poplin
	arches  []string
}

func main() {
	r := release{}
	arch := flag.String("arch", "amd64,arm64", "`architectures`, separated by commas")
	flag.StringVar(&r.version, "version", "", "`version`, such as v1.2.3")
	flag.StringVar(&r.bin, "bin", "bin", "`directory` of the programs; those of another architecture are in a directory named after it below")
	flag.StringVar(&r.out, "o", "", "`directory` to write to; images that are there get their place in the checksums")
	flag.StringVar(&r.chart, "chart", "dist/chart", "`directory` of the Helm chart")
	flag.StringVar(&r.changes, "changes", "CHANGELOG.md", "the `file` that the notes are from")
	flag.StringVar(&r.image, "registry", "poplin.dev", "where images will be: `REGISTRY`/poplin:VERSION")
	flag.Parse()
	r.arches = strings.Split(*arch, ",")
	if flag.NArg() > 0 || r.version == "" || r.out == "" {
		fmt.Fprintln(os.Stderr, "release: want -version and -o, and no arguments")
		os.Exit(2)
	}
	if err := r.run(); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func (r release) run() error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	for _, part := range []func() error{r.programs, r.manifests, r.helm, r.contents, r.notes, r.checksums} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// programNames are what is shipped.
var programNames = []string{"poplin", "poplind", "poplin-ingress", "poplinctl"}

// dir is where the programs of an architecture are.
func (r release) dir(arch string) string {
	if arch == runtime.GOARCH {
		return r.bin
	}
	return filepath.Join(r.bin, arch)
}

// paths are those of the programs of an architecture.
func (r release) paths(arch string) []string {
	var list []string
	for _, name := range programNames {
		list = append(list, filepath.Join(r.dir(arch), name))
	}
	return list
}

// programs writes an archive for each architecture, with the licences of what
// is linked in.
func (r release) programs() error {
	for _, arch := range r.arches {
		var files []entry
		for _, name := range programNames {
			files = append(files, entry{name: name, mode: 0o755, source: filepath.Join(r.dir(arch), name)})
		}
		for _, name := range []string{"LICENSE", "README.md"} {
			files = append(files, entry{name: name, mode: 0o644, source: name})
		}
		texts, err := contents.Texts(r.paths(arch)...)
		if err != nil {
			return err
		}
		for _, t := range texts {
			files = append(files, entry{name: "licenses/" + t.Of + "/" + t.Name, mode: 0o644, source: t.File})
		}
		name := fmt.Sprintf("poplin-%s-linux-%s", r.version, arch)
		if err := writeArchive(filepath.Join(r.out, name+".tar.gz"), name, files); err != nil {
			return err
		}
	}
	return nil
}

// manifests writes them with the names of this version's images: what is
// applied by itself as files, and all together with their options as an archive.
func (r release) manifests() error {
	const dir = "install/manifests"
	var files []entry
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		text := r.named(string(b))
		files = append(files, entry{name: filepath.ToSlash(rel), mode: 0o644, content: text})
		if filepath.Dir(rel) == "." {
			return os.WriteFile(filepath.Join(r.out, rel), []byte(text), 0o644)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("collect manifests: %w", err)
	}
	name := "poplin-" + r.version + "-manifests"
	return writeArchive(filepath.Join(r.out, name+".tar.gz"), name, files)
}

// helm writes the chart's archive, under the name and below the directory that
// Helm gives one.
func (r release) helm() error {
	var files []entry
	err := filepath.WalkDir(r.chart, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(r.chart, path)
		files = append(files, entry{name: filepath.ToSlash(rel), mode: 0o644, source: path})
		return err
	})
	if err != nil {
		return fmt.Errorf("collect the chart: %w", err)
	}
	return writeArchive(filepath.Join(r.out, "poplin-"+strings.TrimPrefix(r.version, "v")+".tgz"), "poplin", files)
}

// named gives a manifest the names of this version's images.
func (r release) named(manifest string) string {
	return strings.NewReplacer(
		"poplin.dev/poplin:dev", r.image+"/poplin:"+r.version,
		"poplin.dev/poplin-ingress:dev", r.image+"/poplin-ingress:"+r.version,
	).Replace(manifest)
}

// notes writes what the change log says of the version, or of what was not
// released yet.
func (r release) notes() error {
	b, err := os.ReadFile(r.changes)
	if err != nil {
		return err
	}
	text, found := section(string(b), strings.TrimPrefix(r.version, "v"))
	if !found {
		text, found = section(string(b), "Unreleased")
	}
	if !found {
		return fmt.Errorf("read %s: it has neither a section %q nor one %q", r.changes, strings.TrimPrefix(r.version, "v"), "Unreleased")
	}
	head := "# Poplin " + r.version + "\n\nImages: `" + r.image + "/poplin:" + r.version + "`, `" + r.image + "/poplin-ingress:" + r.version +
		"`, for " + strings.Join(r.arches, " and ") + ".\nInstall: `kubectl apply -f poplin.yaml`. Check downloads: `sha256sum -c SHA256SUMS`.\n\n"
	return os.WriteFile(filepath.Join(r.out, "NOTES.md"), []byte(head+text), 0o644)
}

// section is what stands below "## title", to the next of its kind.
func section(text, title string) (string, bool) {
	_, rest, found := strings.Cut(text, "\n## "+title)
	if !found {
		return "", false
	}
	_, rest, _ = strings.Cut(rest, "\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	return strings.TrimSpace(rest) + "\n", true
}

// checksums is last: of everything there is, in the form of sha256sum.
func (r release) checksums() error {
	list, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range list {
		if e.Name() == "SHA256SUMS" {
			continue
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("check %s: %s is no file; a release is made into a directory of its own", r.out, e.Name())
		}
		sum, err := contents.Digest(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, e.Name())
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(b.String()), 0o644)
}
