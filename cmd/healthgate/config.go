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
		Short: "Print the configuration of a gate, or add it to a file",
		Long: `Print the lines that add a gate of a cluster to an Envoy configuration, as YAML with comments.

With --into it prints the additions to a bootstrap, a file for xDS or a ConfigMap, as a diff; --write writes them. It only adds:
the file's own lines and comments do not change. Before it writes, it reads the result, which must differ by exactly the additions.

A cluster without health checks gets one by --grpc-service or --http-check. A gRPC check needs HTTP/2 to the cluster's hosts; nothing
else changes the protocol of a cluster.`,
		Example: `  healthgate config --cluster service
  healthgate config --cluster service --path /healthz --grpc-service shop.v1.Checkout --into envoy.yaml
  healthgate config --cluster web --http-check /healthz --variant module --into envoy.yaml --write`,
		Args: noArgument("into"),
	}
	flags := command.Flags()
	cluster := flags.String("cluster", "", "the cluster's name in Envoy")
	path := flags.String("path", "/", "the probe's path")
	variant := flags.String("variant", "plugin",
		"plugin: the Go plugin, for Envoy's contrib build; module: the dynamic module, for stock Envoy 1.38 to 1.40")
	service := flags.String("grpc-service", "",
		`check the cluster's hosts by grpc.health.v1, for this service; "" is the server as a whole`)
	http := flags.String("http-check", "", "check the cluster's hosts by GET of this path")
	into := flags.String("into", "", "the file to add the gate to, in YAML or JSON")
	write := flags.Bool("write", false, "with --into: write the file")
	place := configure.Place{}
	flags.StringVar(&place.Listener, "listener", "",
		"with --into: the listener for the gate, by its name or host:port, if there are several")
	flags.StringVar(&place.RouteConfig, "route-config", "", "with --into: the route configuration for the gate, if a listener has several")
	flags.StringVar(&place.VirtualHost, "virtual-host", "",
		`with --into: the virtual host for the route (default: the one for the domain "*")`)
	_ = command.RegisterFlagCompletionFunc("variant", cobra.FixedCompletions([]string{"plugin", "module"}, cobra.ShellCompDirectiveNoFileComp))
	command.RunE = func(command *cobra.Command, _ []string) error {
		if *cluster == "" {
			return errors.New("--cluster: give the cluster's name in Envoy")
		}
		if *variant != "plugin" && *variant != "module" {
			return fmt.Errorf("--variant: %q is neither plugin nor module", *variant)
		}
		if *write && *into == "" {
			return errors.New("--write needs --into FILE")
		}
		if place != (configure.Place{}) && *into == "" {
			return errors.New("--listener, --route-config and --virtual-host need --into FILE")
		}
		if flags.Changed("http-check") && *http == "" {
			return errors.New("--http-check: a path is required, as in /healthz")
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
		return errors.Join(err, fmt.Errorf("%s is longer than %d MiB, which is the limit: nothing is written", name, len(content)>>20))
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
	found, err := lint.Run([]lint.Input{{Name: name, Content: result.Content}})
	if err != nil {
		return fmt.Errorf("nothing is written: lint can't read the result: %w", err)
	}
	if write {
		if err := replaceFile(name, content, result.Content); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(command.ErrOrStderr(), "healthgate: nothing is written; --write writes the file")
	}
	if len(found) > 0 {
		fmt.Fprintln(command.ErrOrStderr(), "healthgate: lint of the result:")
		if err := printAs("text", command.ErrOrStderr(), "findings", found); err != nil {
			return err
		}
		return reported(exitProblems)
	}
	return nil
}
