package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
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
		Args: noArgument,
	}
	output := outputFlag(command)
	address := adminFlag(command)
	watch := command.Flags().BoolP("watch", "w", false, "print a line for each change of an answer, a count or a host")
	interval := command.Flags().Duration("interval", time.Second, "with --watch: the time between two polls")
	probe := command.Flags().Bool("probe", true, "also probe the gates")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		admin, err := envoyadmin.New(*address)
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
		if err := printReport(command.OutOrStdout(), *output, report); err != nil {
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

func printReport(out io.Writer, output string, r *explain.Report) error {
	if output == "json" {
		return printJSON(out, r)
	}
	var b strings.Builder
	paint := painter(out)
	fmt.Fprintf(&b, "Envoy %s is %s, up %s; admin at %s\n", r.Version, r.State, r.Uptime, r.Admin)
	for _, problem := range r.Problems {
		fmt.Fprintf(&b, "%s %s\n  next    %s\n", paint(red, "problem:"), problem.What, paint(yellow, problem.Next))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	for _, g := range r.Gates {
		writeGate(&b, paint, g)
	}
	fmt.Fprintf(&b, "\nlint: %d findings in its configuration\n", len(r.Findings))
	if _, err := io.WriteString(out, b.String()); err != nil || len(r.Findings) == 0 {
		return err
	}
	return printFindings(out, "text", r.Findings)
}

func writeGate(b *strings.Builder, paint func(code, text string) string, g explain.Gate) {
	colour := red
	if g.Answer.Passing {
		colour = green
	}
	fmt.Fprintf(b, "\ngate %s: GET %s on listener %s (%s)\n", paint(bold, cmp.Or(g.Name, "?")), g.Path, cmp.Or(g.Listener, "without a name"),
		cmp.Or(g.Address, "address not known"))
	how := map[string]string{"probe": "it was asked", "numbers": "by the numbers"}[g.Answer.By]
	if g.Answer.By == "numbers" && g.Probe == nil {
		how += "; it was not asked"
	}
	fmt.Fprintf(b, "  answers %s (%s)\n", paint(colour, strings.TrimSpace(fmt.Sprint(g.Answer.Status, " ", g.Answer.Details))), how)
	since := g.Answer.Since
	if since == "" {
		since = fmt.Sprintf("unknown without response.details; Envoy's log has it, \"healthgate: gate %s \"", cmp.Or(g.Name, "…"))
	}
	fmt.Fprintf(b, "  since   %s\n", since)
	for _, c := range g.Clusters {
		fmt.Fprintf(b, "  cluster %s: %d healthy and %d degraded of %d hosts (%d excluded), needs %s: %s\n",
			c.Name, c.Healthy, c.Degraded, c.Total, c.Excluded, c.Needs, c.Reason)
		for _, host := range c.Failing {
			fmt.Fprintf(b, "    %s %s\n", host.Address, host.Why)
		}
	}
	if g.Probe != nil && g.Probe.Error == "" {
		by := ""
		if !g.Probe.Counted {
			by = ", not counted by the gate"
		}
		fmt.Fprintf(b, "  probe   %s: %s %d in %s%s\n", g.Probe.URL, g.Probe.Protocol, g.Probe.Status, g.Probe.Took, by)
	} else if g.Probe != nil {
		fmt.Fprintf(b, "  probe   %s: no answer\n", g.Probe.URL)
	}
	for _, problem := range g.Problems {
		fmt.Fprintf(b, "  %s %s\n", paint(red, "problem"), problem)
	}
	for _, unknown := range g.Unknown {
		fmt.Fprintf(b, "  unknown %s\n", unknown)
	}
	if g.Next != "" {
		fmt.Fprintf(b, "  next    %s\n", paint(yellow, g.Next))
	}
}
