// Command healthgate writes and checks a configuration, explains a running gate's answers, and drains an Envoy.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"healthgate/filter/version"
)

// The exit codes of every command. docs/operating.md has them as a table.
const (
	exitFine     = 0
	exitProblems = 1 // the command found problems
	exitFailed   = 2 // usage or I/O error
)

// reported is an exit code whose reason is already printed.
type reported int

func (r reported) Error() string { return fmt.Sprintf("exit code %d", int(r)) }

func main() {
	log.SetOutput(io.Discard) // net/http logs unasked answers of a server there; errors are returned
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, newCommand(), os.Args[1:]))
}

// run executes the command and returns its exit code.
func run(ctx context.Context, command *cobra.Command, args []string) int {
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	code := reported(exitFailed)
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(command.ErrOrStderr(), "healthgate:", err)
	return exitFailed
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "healthgate",
		Short: "Write, check and explain health gates in Envoy",
		Long: `Healthgate lets Envoy answer a load balancer's HTTP health check from the health of its clusters.
config adds a gate to a file; lint checks files; explain asks a running Envoy; alive and drain run in Envoy's container.

Exit codes of every command: 0 all well, 1 problems found, 2 usage or I/O error.`,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("healthgate {{.Version}}\n")
	root.AddCommand(newConfig(), newLint(), newExplain(), newAlive(), newDrain(), newVersion())
	return root
}

// flagError adds the right form to the error of a flag.
func flagError(command *cobra.Command, err error) error {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return fmt.Errorf("%w: %s --help lists the flags", err, command.CommandPath())
	}
	right := map[string]string{"duration": "a duration, as in 30s", "bool": "true or false"}[wrong.GetFlag().Value.Type()]
	return fmt.Errorf("--%s: %q is not %s", wrong.GetFlag().Name, wrong.GetValue(), right)
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(command.OutOrStdout(), "healthgate", version.String())
			return err
		},
	}
}
