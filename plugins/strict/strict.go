// Package strict reads JSON objects whose every key is known. Inputs are the
// object, its path for messages and the places its values go to; output is
// those values. It refuses a key that nobody reads: a misspelt key that is
// silently ignored costs its author an afternoon.
package strict

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Fields says where the value of each known key goes: a pointer as for
// json.Unmarshal, or nil for a key that is tolerated and not read. A name
// that ends in a slash stands for every key that begins with it.
type Fields map[string]any

// Object reads the JSON object raw. path names it in messages ("ipam",
// "ipam.ranges[0]"); the outermost object has none.
func Object(raw []byte, path string, fields Fields) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return fmt.Errorf("%s: want a JSON object, have %s", or(path, "configuration"), Shorten(raw))
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		value := object[key]
		to, known := fields[key]
		if at := strings.IndexByte(key, '/'); at >= 0 && !known {
			to, known = fields[key[:at+1]]
		}
		switch {
		case !known:
			return fmt.Errorf("%s: unknown key with value %s; remove it, or use one of: %s",
				Join(path, key), Shorten(value), strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case to == nil:
			continue
		}
		if err := json.Unmarshal(value, to); err != nil {
			return fmt.Errorf("%s: cannot use %s: %w", Join(path, key), Shorten(value), err)
		}
	}
	return nil
}

// Join is the path of a key in the object at path.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Shorten makes a JSON value fit into a message.
func Shorten(raw []byte) string {
	const most = 80
	s := strings.Join(strings.Fields(string(raw)), " ")
	if s == "" {
		return "nothing"
	}
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
