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
		Use:   "explain [ADMIN]",
		Short: "Say why a running Envoy's gates answer as they do, and what the next step is",
		Long: `Say of a running Envoy what each gate answers, by which numbers, which hosts fail and why, what the next step is, and what lint
finds in the configuration that it has. ADMIN is host:port or unix:///path; by default ADMIN_ADDRESS, or 127.0.0.1:9901.

Each gate is asked once, where its listener can be reached; it counts that as a probe (--probe=false to look alone).
It ends with 1 where a gate fails or lint finds something.`,
		Example: `  healthgate explain
  kubectl exec deploy/envoy -- healthgate explain
  healthgate explain unix:///run/envoy/admin.sock --watch`,
		Args: cobra.MaximumNArgs(1),
	}
	output := outputFlag(command)
	address := adminFlag(command)
	watch := command.Flags().BoolP("watch", "w", false, "print a line each time an answer, a count or a host changes")
	interval := command.Flags().Duration("interval", time.Second, "between two looks, with --watch")
	probe := command.Flags().Bool("probe", true, "ask the gates themselves, too")
	command.RunE = func(command *cobra.Command, args []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		if len(args) > 0 {
			*address = args[0]
		}
		admin, err := envoyadmin.New(*address)
		if err != nil {
			return err
		}
		if *watch {
			return watchGates(command, admin, *interval, *output)
		}
		report, err := explain.Look(command.Context(), admin, explain.Options{Probe: *probe})
		if err != nil {
			return err
		}
		if err := printReport(command.OutOrStdout(), *output, report); err != nil {
			return err
		}
		if !report.Fine() {
			return errFound
		}
		return nil
	}
	return command
}

func watchGates(command *cobra.Command, admin *envoyadmin.Client, interval time.Duration, output string) error {
	if interval < 50*time.Millisecond {
		return fmt.Errorf("--interval: %v is less than 50ms, which is a load on Envoy's main thread", interval)
	}
	// Whoever mistypes the address is told, and not left waiting.
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
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	}
	var b strings.Builder
	paint := painter(out)
	fmt.Fprintf(&b, "Envoy %s is %s, up %s; admin at %s\n", r.Version, r.State, r.Uptime, r.Admin)
	if len(r.Gates) == 0 {
		b.WriteString("no gate is in its configuration\n")
	}
	for _, g := range r.Gates {
		writeGate(&b, paint, g)
	}
	fmt.Fprintf(&b, "\nlint finds %d in its configuration\n", len(r.Findings))
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
	fmt.Fprintf(b, "\ngate %s: GET %s on listener %s (%s)\n", paint(bold, g.Name), g.Path, g.Listener, cmp.Or(g.Address, "address not known"))
	how := map[string]string{"probe": "it was asked", "numbers": "by the numbers; it was not asked"}[g.Answer.By]
	fmt.Fprintf(b, "  answers %s (%s)\n", paint(colour, strings.TrimSpace(fmt.Sprint(g.Answer.Status, " ", g.Answer.Details))), how)
	since := g.Answer.Since
	if since == "" {
		since = fmt.Sprintf("can't be told from outside without response.details; Envoy's log has \"healthgate: gate %s turns from\"", g.Name)
	}
	fmt.Fprintf(b, "  since   %s\n", since)
	for _, c := range g.Clusters {
		fmt.Fprintf(b, "  cluster %s: %d healthy and %d degraded of %d hosts (%d excluded), needs %s: %s\n", c.Name, c.Healthy, c.Degraded, c.Total, c.Excluded, c.Needs, c.Reason)
		for _, host := range c.Failing {
			fmt.Fprintf(b, "    %s %s\n", host.Address, host.Why)
		}
	}
	if g.Probe != nil && g.Probe.Error != "" {
		fmt.Fprintf(b, "  probe   %s: %s\n", g.Probe.URL, g.Probe.Error)
	} else if g.Probe != nil {
		fmt.Fprintf(b, "  probe   %s: %s %d in %s\n", g.Probe.URL, g.Probe.Protocol, g.Probe.Status, g.Probe.Took)
	}
	for _, unknown := range g.Unknown {
		fmt.Fprintf(b, "  can't tell %s\n", unknown)
	}
	if g.Next != "" {
		fmt.Fprintf(b, "  next    %s\n", paint(yellow, g.Next))
	}
}
