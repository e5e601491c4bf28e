// Command healthgate says whether a configuration is right, why a running gate answers as it does, and ends an Envoy in
// order.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// What the command ends with.
const (
	exitFine  = 0
	exitFound = 1 // it looked, and something is wrong
	exitBlind = 2 // it could not look
)

// errFound is that something was found, and has been told.
var errFound = errors.New("something was found")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, newCommand(), os.Args[1:]))
}

// run executes the command and returns its exit code.
func run(ctx context.Context, command *cobra.Command, args []string) int {
	command.SetArgs(args)
	switch err := command.ExecuteContext(ctx); {
	case err == nil:
		return exitFine
	case errors.Is(err, errFound):
		return exitFound
	default:
		fmt.Fprintln(command.ErrOrStderr(), "healthgate:", err)
		return exitBlind
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "healthgate",
		Short: "Is my configuration right, and why does it say 503?",
		Long: `Healthgate answers a load balancer's GET from the health that Envoy holds of its clusters.
This command looks at its configuration, at a running Envoy, and ends one in order.

It ends with 0 where all is fine, 1 where something was found, 2 where it could not look.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newLint(), newExplain(), newConfig(), newAlive(), newDrain())
	return root
}
