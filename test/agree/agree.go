// Package agree holds what the kernel has of a table to the programs that were
// written into it. Inputs are a table in a network namespace of the test's own,
// and programs by chance; outputs are a test's failures, with the seed. It
// refuses to know what is in a program but its text.
package agree

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"poplin.dev/poplin/test/space"
)

// Table is an applier of programs.
type Table[P fmt.Stringer] interface {
	// Set says how many elements it has changed.
	Set(P) (int, error)
	Program() (P, error)
	Forget()
	Remove() error
}

// changes is how many programs follow each other.
const changes = 60

// AfterEveryChange sets one program after the other, reads each from the kernel,
// and sees to it that nothing is left in the end. Now and then another process
// takes over, by reconnect.
func AfterEveryChange[P fmt.Stringer](t *testing.T, table Table[P], reconnect func() error, program func(*rand.Rand) P) {
	t.Helper()
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 1))
	for i := range changes {
		want := program(dice)
		if _, err := table.Set(want); err != nil {
			t.Fatalf("change %d of seed %d: %v", i, seed, err)
		}
		if dice.IntN(5) == 0 {
			if err := reconnect(); err != nil {
				t.Fatal(err)
			}
		}
		table.Forget()
		got, err := table.Program()
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Fatalf("change %d of seed %d: the kernel holds\n%s\nnot\n%s", i, seed, got, want)
		}
		if n, err := table.Set(want); n != 0 || err != nil {
			t.Fatalf("nothing to do, yet %d elements changed, %v", n, err)
		}
	}
	if err := table.Remove(); err != nil {
		t.Fatal(err)
	}
	if left := space.Nft(t, "list", "ruleset"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}
