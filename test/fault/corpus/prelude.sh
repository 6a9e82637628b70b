# What scripts of the corpus may use beside the node's programs.

# keep DEVICE: remember its addresses, routes and neighbours, which go when the
# device goes down or loses its address.
keep() {
	mkdir -p /run/corpus
	for family in 4 6; do
		{
			ip -$family -o addr show dev "$1" scope global | while read -r _ _ _ address _; do
				echo "addr replace $address dev $1 $([ $family = 4 ] || echo nodad)"
			done
			ip -$family route show dev "$1" | grep -v 'proto kernel' | sed "s/.*/route replace & dev $1/"
			ip -$family neigh show nud permanent dev "$1" | sed "s/.*/neigh replace & dev $1/; s/ PERMANENT/ nud permanent/"
		} > "/run/corpus/$1-$family"
	done
}

# restore DEVICE: give back what was kept. A line may need one below it first,
# hence twice.
restore() {
	ip link set "$1" up
	for family in 4 6; do
		for _ in 1 2; do
			ip -$family -force -batch "/run/corpus/$1-$family" > /dev/null 2>&1 || :
		done
		rm "/run/corpus/$1-$family"
	done
}

# again: end what the server's container runs, so that it runs /tmp/serve anew.
# It may have ended by itself just now.
again() {
	kill "$(cat /tmp/pid)" 2> /dev/null || :
}

# freeze PROCESS: have it hang. Each of its threads stops when it next runs.
freeze() {
	kill -STOP "$1"
	while cat /proc/"$1"/task/*/stat | sed 's/.*) //' | grep -qv '^T'; do
		sleep 0.01
	done
}
