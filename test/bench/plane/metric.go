package plane

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/test/cni"
)

// Series are a program's figures, by name with labels.
type Series map[string]float64

// Metrics asks a program that runs on a node for all figures of its own.
func Metrics(ctx context.Context, n *cni.Node, url string) (Series, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: Dialer(n), DisableKeepAlives: true}, Timeout: 10 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return series(response.Body)
}

// Metric is one of them.
func Metric(ctx context.Context, n *cni.Node, url, name string) (float64, error) {
	all, err := Metrics(ctx, n, url)
	if err != nil {
		return 0, err
	}
	value, found := all[name]
	if !found {
		return 0, fmt.Errorf("metric %s is not there", name)
	}
	return value, nil
}

// Metrics asks the API server for its figures.
func (l *Plane) Metrics(ctx context.Context) (Series, error) {
	body, err := l.API.Open(ctx, "/metrics", "text/plain")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return series(body)
}

func series(text io.Reader) (Series, error) {
	s := Series{}
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("read metric %s: %w", line[:at], err)
		}
		s[line[:at]] = value
	}
	return s, lines.Err()
}

// Sum adds up those of a name that have all these labels, such as verb="WATCH".
func (s Series) Sum(name string, labels ...string) (sum float64) {
next:
	for key, value := range s {
		if !strings.HasPrefix(key, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(key, l) {
				continue next
			}
		}
		sum += value
	}
	return sum
}
