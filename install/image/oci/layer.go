package oci

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// File is one entry of an image. Exactly what Mode says it is: a directory, a
// symbolic link to Link, or a regular file with Content, or with that of the
// file Source on this machine. Directories above it need not be listed.
type File struct {
	Path    string // in the image: "/etc/passwd" or "etc/passwd"
	Mode    fs.FileMode
	Content []byte
	Source  string
	Link    string
}

// Tree lists everything below a directory of this machine as files of an image.
func Tree(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		file := File{Path: filepath.ToSlash(inside), Mode: info.Mode()}
		switch {
		case info.Mode().IsRegular():
			file.Source = name
		case info.Mode()&fs.ModeSymlink != 0:
			if file.Link, err = os.Readlink(name); err != nil {
				return err
			}
		case !info.IsDir():
			return fmt.Errorf("%s is neither a file, a directory nor a symbolic link", name)
		}
		files = append(files, file)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list image files in %s: %w", root, err)
	}
	return files, nil
}

// writeLayer writes files as a layer and returns the digest of its
// uncompressed form.
func writeLayer(w io.Writer, files []File, compress bool) (v1.Hash, error) {
	files, err := complete(files)
	if err != nil {
		return v1.Hash{}, err
	}
	var zip *gzip.Writer
	if compress {
		if zip, err = gzip.NewWriterLevel(w, gzip.BestSpeed); err != nil {
			return v1.Hash{}, err
		}
		w = zip
	}
	sum := sha256.New()
	archive := tar.NewWriter(io.MultiWriter(w, sum))
	for _, file := range files {
		if err := file.write(archive); err != nil {
			return v1.Hash{}, fmt.Errorf("write file %s: %w", file.Path, err)
		}
	}
	err = archive.Close()
	if zip != nil {
		err = errors.Join(err, zip.Close())
	}
	return hash(sum.Sum(nil)), err
}

// complete cleans paths, adds the directories above each file, and sorts.
func complete(files []File) ([]File, error) {
	byPath := map[string]File{}
	for _, file := range files {
		clean := strings.TrimPrefix(path.Clean(file.Path), "/")
		if clean == "." || clean == "" || clean == ".." || strings.HasPrefix(clean, "../") {
			return nil, fmt.Errorf("check image file %q: want a path inside the image", file.Path)
		}
		if _, twice := byPath[clean]; twice {
			return nil, fmt.Errorf("check image file %q: the path is given twice", file.Path)
		}
		file.Path = clean
		byPath[clean] = file
	}
	for _, file := range files {
		for dir := path.Dir(strings.TrimPrefix(path.Clean(file.Path), "/")); dir != "."; dir = path.Dir(dir) {
			parent, listed := byPath[dir]
			if listed && !parent.Mode.IsDir() {
				return nil, fmt.Errorf("check image file %q: %s above it is not a directory", file.Path, dir)
			}
			if !listed {
				byPath[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	sorted := make([]File, 0, len(byPath))
	for _, file := range byPath {
		sorted = append(sorted, file)
	}
	slices.SortFunc(sorted, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return sorted, nil
}

func (f File) write(archive *tar.Writer) error {
	h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	for bit, unix := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if f.Mode&bit != 0 {
			h.Mode |= unix
		}
	}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
		return archive.WriteHeader(h)
	case f.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return archive.WriteHeader(h)
	case f.Source == "":
		h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Content))
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		_, err := archive.Write(f.Content)
		return err
	}
	source, err := os.Open(f.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(archive, source)
	return err
}
