package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Key is one key of the file.
type Key struct {
	// Path is its place in the file, such as overlay.mtu.
	Path string
	// Fields are the struct's field of the key, and before it those of the
	// objects that it is in.
	Fields []reflect.StructField
	// Default is the value of a key that is not given.
	Default reflect.Value
}

// String is the key's path.
func (k Key) String() string { return k.Path }

// Live says that a change takes effect without a restart.
func (k Key) Live() bool { return k.tag("live") == "true" }

// Words are those that the value may be; none: the type says what it may be.
func (k Key) Words() []string {
	if words := k.tag("oneof"); words != "" {
		return strings.Split(words, ",")
	}
	return nil
}

// Range is the least and the largest number that the value may be, beside the
// default; no text where there is no limit.
func (k Key) Range() (least, most string) {
	least, most, _ = strings.Cut(k.tag("range"), "..")
	return least, most
}

func (k Key) tag(name string) string { return k.Fields[len(k.Fields)-1].Tag.Get(name) }

// Keys are all of the file, in its order.
func Keys() (list []Key) {
	walk(nil, reflect.ValueOf(Default()), func(k Key) { list = append(list, k) })
	return list
}

// walk visits the leaves of a configuration of default values.
func walk(in []reflect.StructField, v reflect.Value, leaf func(Key)) {
	if v.Kind() != reflect.Struct {
		k := Key{Fields: in, Default: v}
		for _, f := range in {
			k.Path = join(k.Path, f.Tag.Get("json"))
		}
		leaf(k)
		return
	}
	for i := range v.NumField() {
		walk(append(in[:len(in):len(in)], v.Type().Field(i)), v.Field(i), leaf)
	}
}

// In is the key's value in a configuration.
func (k Key) In(c Config) reflect.Value {
	v := reflect.ValueOf(c)
	for _, f := range k.Fields {
		v = v.FieldByIndex(f.Index)
	}
	return v
}

// Changes are the keys in which b differs from a, in the file's order.
func Changes(a, b Config) (list []Key) {
	for _, k := range Keys() {
		if Text(k.In(a)) != Text(k.In(b)) {
			list = append(list, k)
		}
	}
	return list
}

// Text is a value as JSON: nil and empty are the same to the reader of a file.
func Text(v reflect.Value) string {
	if k := v.Kind(); (k == reflect.Slice || k == reflect.Map) && v.Len() == 0 {
		return "[]"
	}
	b, err := json.Marshal(v.Interface())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// check finds a value that the key's tags do not allow.
func (k Key) check(v reflect.Value) error {
	if words := k.Words(); len(words) > 0 && !slices.Contains(words, v.String()) {
		last := len(words) - 1
		return fmt.Errorf("%q is not understood: write %s or %s", v, strings.Join(words[:last], ", "), words[last])
	}
	least, most := k.Range()
	if least == "" || v.Equal(k.Default) {
		return nil
	}
	n := v.Int()
	if from, err := strconv.ParseInt(least, 10, 64); err != nil {
		return err
	} else if n < from {
		return fmt.Errorf("%s is less than %s: the default is %s", Text(v), least, Text(k.Default))
	}
	if most == "" {
		return nil
	}
	if to, err := strconv.ParseInt(most, 10, 64); err != nil {
		return err
	} else if n > to {
		return fmt.Errorf("%s is more than %s: the default is %s", Text(v), most, Text(k.Default))
	}
	return nil
}
