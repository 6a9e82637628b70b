package operate

import (
	"strings"
	"testing"

	"poplin.dev/poplin/test/monitoring"
)

// metrics are those that a program exports.
func metrics(list func() ([]monitoring.Metric, error)) func(*testing.T) string {
	return func(t *testing.T) string {
		all, err := list()
		if err != nil {
			t.Fatal(err)
		}
		var lines [][]string
		for _, m := range all {
			if m.Help == "" {
				t.Errorf("%s has no help", m.Name)
			}
			lines = append(lines, []string{"`" + m.Name + "`", m.Type, unit(m.Name), quoted(m.Labels), m.Help})
		}
		return rows([]string{"metric", "type", "unit", "labels", "meaning"}, lines)
	}
}

// unit is in a metric's name, as Prometheus wants it.
func unit(name string) string {
	for _, u := range [][2]string{{"_timestamp_seconds", "Unix time"}, {"_seconds", "seconds"}, {"_bytes_total", "bytes"}, {"_bytes", "bytes"}} {
		if strings.HasSuffix(name, u[0]) {
			return u[1]
		}
	}
	return ""
}
