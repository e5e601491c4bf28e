package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"healthgate/internal/configure"
	"healthgate/internal/lint"
)

func newConfig() *cobra.Command {
	command := &cobra.Command{
		Use:   "config",
		Short: "Print what to add for a gate, or write it into a file",
		Long: `Print what to add to an Envoy configuration for a gate of a cluster, as YAML with comments.

With --into it shows the additions to a bootstrap, a file for xDS or a ConfigMap, as a diff; --write makes them. It only adds:
the file's own lines and comments stay. It writes only if the result reads back as the file did, with exactly the additions in it.

A cluster without health checks gets one by --grpc-service or --http-check. A gRPC check needs HTTP/2 to the cluster's hosts; nothing
else changes how Envoy speaks to a cluster.`,
		Example: `  healthgate config --cluster service
  healthgate config --cluster service --path /healthz --grpc-service shop.v1.Checkout --into envoy.yaml
  healthgate config --cluster web --http-check /healthz --variant module --into envoy.yaml --write`,
		Args: cobra.NoArgs,
	}
	flags := command.Flags()
	cluster := flags.String("cluster", "", "the cluster's name in Envoy")
	path := flags.String("path", "/", "the probe's path")
	variant := flags.String("variant", "plugin",
		"plugin: the Go plugin, for Envoy's contrib build; module: the dynamic module, for stock Envoy 1.38 to 1.40")
	service := flags.String("grpc-service", "",
		`check the cluster's hosts by grpc.health.v1, for this service; "" asks for the server as a whole`)
	http := flags.String("http-check", "", "check the cluster's hosts by GET of this path")
	into := flags.String("into", "", "the file to add it to, in YAML or JSON")
	write := flags.Bool("write", false, "with --into: write the file")
	place := configure.Place{}
	flags.StringVar(&place.Listener, "listener", "",
		"with --into: the listener that gets the gate, by its name or host:port, if there are several")
	flags.StringVar(&place.RouteConfig, "route-config", "", "with --into: the route configuration that gets it, if a listener has several")
	flags.StringVar(&place.VirtualHost, "virtual-host", "",
		`with --into: the virtual host that gets the route (default: the one of the domain "*")`)
	_ = command.MarkFlagRequired("cluster")
	_ = command.RegisterFlagCompletionFunc("variant", cobra.FixedCompletions([]string{"plugin", "module"}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, _ []string) error {
		if *variant != "plugin" && *variant != "module" {
			return fmt.Errorf("--variant: %q is neither plugin nor module", *variant)
		}
		if *write && *into == "" {
			return errors.New("--write: goes with --into FILE")
		}
		if place != (configure.Place{}) && *into == "" {
			return errors.New("--listener, --route-config and --virtual-host: go with --into FILE")
		}
		if flags.Changed("http-check") && *http == "" {
			return errors.New("--http-check: give a path, as in /healthz")
		}
		gate := configure.Gate{Cluster: *cluster, Path: *path, Module: *variant == "module",
			Check: configure.Check{GRPC: flags.Changed("grpc-service"), Service: *service, Path: *http}}
		if err := gate.Validate(); err != nil {
			return err
		}
		if *into == "" {
			_, err := io.WriteString(command.OutOrStdout(), gate.Print())
			return err
		}
		return configInto(command, gate, *into, place, *write)
	}
	return command
}

func configInto(command *cobra.Command, gate configure.Gate, name string, place configure.Place, write bool) error {
	content, err := readFile(name)
	if err != nil {
		return err
	}
	if info, err := os.Stat(name); err != nil || info.Size() > int64(len(content)) {
		return errors.Join(err, fmt.Errorf("%s is longer than the %d MiB that are read: nothing is written", name, len(content)>>20))
	}
	result, err := gate.Into(name, content, place)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(command.OutOrStdout(), result.Diff); err != nil {
		return err
	}
	for _, note := range result.Notes {
		fmt.Fprintln(command.ErrOrStderr(), "healthgate: note:", note)
	}
	// Something around the gate may still be wrong.
	found, err := lint.Run([]lint.Input{{Name: name, Content: result.Content}})
	if err != nil {
		return fmt.Errorf("nothing is written: lint can't read the result: %w", err)
	}
	if write {
		if err := replaceFile(name, content, result.Content); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(command.ErrOrStderr(), "healthgate: nothing is written yet; --write does it")
	}
	if len(found) > 0 {
		fmt.Fprintln(command.ErrOrStderr(), "healthgate: lint finds in the result:")
		if err := printFindings(command.ErrOrStderr(), "text", found); err != nil {
			return err
		}
		return reported(exitProblems)
	}
	return nil
}
