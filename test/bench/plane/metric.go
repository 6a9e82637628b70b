package plane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/test/cni"
)

// Metric asks a program that runs on a node for one figure of its own.
func Metric(ctx context.Context, n *cni.Node, url, name string) (float64, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: Dialer(n), DisableKeepAlives: true}, Timeout: 10 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("metric %s is not there", name), lines.Err())
}
