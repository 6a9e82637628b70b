// Command image makes Poplin's container images from its programs, from scratch
// and without a container engine. In each are the programs of its row in
// shipped, the certificate authorities of this machine, and of everything linked
// in the licences and a list (CycloneDX); nothing else.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"poplin.dev/poplin/install/contents"
	"poplin.dev/poplin/install/image/oci"
)

// shipped are the images, by name. What stands at the edge of a cluster is in
// an image of its own: it holds none of the programs that run on nodes as root.
var shipped = map[string]struct {
	programs []string // it runs the first
	user     string
}{
	"poplin":         {programs: []string{"poplind", "poplin", "poplinctl"}},
	"poplin-ingress": {programs: []string{"poplin-ingress"}, user: "65532:65532"},
}

// authorities are the usual places of the trusted certificates, first found wins.
var authorities = []string{
	"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora
	"/etc/ssl/ca-bundle.pem",             // openSUSE
	"/etc/ssl/cert.pem",                  // macOS
}

type names []string

func (n *names) String() string     { return strings.Join(*n, ",") }
func (n *names) Set(s string) error { *n = append(*n, s); return nil }

func main() {
	var tags names
	image := flag.String("image", "poplin", "which `image`: "+strings.Join(slices.Sorted(maps.Keys(shipped)), " or "))
	out := flag.String("o", "", "the `archive` to write (default dist/IMAGE-image.tar)")
	bin := flag.String("bin", "bin", "directory of the programs; those of another architecture are in a directory named after it below")
	version := flag.String("version", "dev", "version, for the image's label")
	arch := flag.String("arch", runtime.GOARCH, "architectures, separated by commas")
	flag.Var(&tags, "name", "name of the image with its tag; repeat it for several (default poplin.dev/IMAGE:dev)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "image: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if len(tags) == 0 {
		tags = names{"poplin.dev/" + *image + ":dev"}
	}
	*out = cmp.Or(*out, "dist/"+*image+"-image.tar")
	if err := run(*image, *out, *bin, *version, strings.Split(*arch, ","), tags); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(image, out, bin, version string, architectures, names []string) error {
	what, found := shipped[image]
	if !found {
		return fmt.Errorf("read -image %q: want %s", image, strings.Join(slices.Sorted(maps.Keys(shipped)), " or "))
	}
	archive := oci.Archive{Names: names, Compress: true}
	for _, arch := range architectures {
		dir := bin
		if arch != runtime.GOARCH {
			dir = filepath.Join(bin, arch)
		}
		files, err := filesOf(image, dir, arch, version)
		if err != nil {
			return err
		}
		archive.Images = append(archive.Images, oci.Image{
			Platform:   "linux/" + arch,
			Entrypoint: []string{"/" + what.programs[0]},
			User:       what.user,
			Env:        []string{"PATH=/"},
			WorkingDir: "/",
			Labels: map[string]string{
				"org.opencontainers.image.title":    image,
				"org.opencontainers.image.version":  version,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
			Files: files,
		})
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("make directory of the image: %w", err)
	}
	return archive.Write(out)
}

// filesOf lists the files of an image for one architecture.
func filesOf(image, bin, arch, version string) ([]oci.File, error) {
	var files []oci.File
	var programs []string
	for _, name := range shipped[image].programs {
		program := filepath.Join(bin, name)
		if err := checkProgram(program, arch); err != nil {
			return nil, err
		}
		programs = append(programs, program)
		files = append(files, oci.File{Path: "/" + name, Mode: 0o755, Source: program})
	}
	roots, err := firstFile(authorities)
	if err != nil {
		return nil, fmt.Errorf("find certificate authorities: %w; install the package ca-certificates", err)
	}
	list, err := contents.BOM(image, version, arch, programs...)
	if err != nil {
		return nil, err
	}
	texts, err := licences(programs)
	return append(append(files,
		oci.File{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Source: roots},
		oci.File{Path: listOf(image), Mode: 0o644, Content: list}), texts...), err
}

func firstFile(candidates []string) (string, error) {
	for _, name := range candidates {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			return name, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("none of %s is there", strings.Join(candidates, ", "))
}
