package observe

import (
	"os"
	"strconv"
	"strings"
)

// reasons are the kernel's counters of packets that it did not forward or take
// though no rule said so.
var reasons = map[string]bool{
	"TcpExt IPReversePathFilter": true, "IpExt InNoRoutes": true, "Ip InAddrErrors": true, "Ip OutNoRoutes": true, "Ip OutDiscards": true,
	"Ip6InNoRoutes": true, "Ip6InAddrErrors": true, "Ip6OutNoRoutes": true, "Ip6OutDiscards": true,
}

// Reasons reads them; the difference of two moments says why packets were lost
// meanwhile.
func Reasons() map[string]int {
	counted := map[string]int{}
	for _, file := range []string{"snmp", "netstat"} {
		text, _ := os.ReadFile("/proc/thread-self/net/" + file) // what is not there was not counted
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < min(len(names), len(values)); j++ {
				note(counted, strings.TrimSuffix(names[0], ":")+" "+names[j], values[j])
			}
		}
	}
	text, _ := os.ReadFile("/proc/thread-self/net/snmp6")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 {
			note(counted, f[0], f[1])
		}
	}
	return counted
}

func note(counted map[string]int, name, value string) {
	if n, err := strconv.Atoi(value); err == nil && reasons[name] {
		counted[name[strings.LastIndexByte(name, ' ')+1:]] += n
	}
}
