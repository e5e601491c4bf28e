package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"healthgate/internal/envoyadmin"
	"healthgate/internal/explain"
)

func newExplain() *cobra.Command {
	command := &cobra.Command{
		Use:   "explain",
		Short: "Explain the answers of a running Envoy's gates, with the next step",
		Long: `Report the answer of each gate of a running Envoy, its numbers, the unhealthy hosts with the reason, and the next step; refused and
waiting updates; and lint's findings in its configuration.

Each gate gets ten probes if its listener can be reached, and counts them (--probe=false sends none). An answer counts only if the
gate's own counters grow by it; otherwise the numbers decide.

The exit code is 1 if there is no gate, a gate fails or does not answer, Envoy has refused an update, or lint finds a problem.`,
		Example: `  healthgate explain
  kubectl exec deploy/envoy -- healthgate explain
  healthgate explain --admin unix:///run/envoy/admin.sock --watch`,
		Args: noArgument("admin"),
	}
	output := outputFlag(command)
	connect := adminFlag(command)
	watch := command.Flags().BoolP("watch", "w", false, "print a line for each change of an answer, a count or a host")
	interval := command.Flags().Duration("interval", time.Second, "with --watch: the time between two polls")
	probe := command.Flags().Bool("probe", true, "also probe the gates")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		admin, err := connect()
		if err != nil {
			return err
		}
		if *watch {
			return watchGates(command, admin, *interval, *output)
		}
		report, err := explain.Run(command.Context(), admin, *probe)
		if err != nil {
			return err
		}
		if err := printAs(*output, command.OutOrStdout(), "report", report); err != nil {
			return err
		}
		if !report.Fine() {
			return reported(exitProblems)
		}
		return nil
	}
	return command
}

func watchGates(command *cobra.Command, admin *envoyadmin.Client, interval time.Duration, output string) error {
	if interval < 50*time.Millisecond {
		return fmt.Errorf("--interval: %v is less than 50ms, too much load for Envoy's main thread", interval)
	}
	// Watch waits for an Envoy that does not answer, so a wrong address is reported here.
	if _, err := admin.ServerInfo(command.Context()); err != nil {
		return err
	}
	out := command.OutOrStdout()
	return explain.Watch(command.Context(), admin, interval, func(c explain.Change) error {
		if output == "json" {
			return json.NewEncoder(out).Encode(c)
		}
		_, err := fmt.Fprintf(out, "%s %s\n", c.At.Format("15:04:05.0"), c)
		return err
	})
}
